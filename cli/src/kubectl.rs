//! Runs kubectl, which reads manifests and kustomizations, and requests from the API server the
//! objects that would follow from them. Performs I/O.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The program, and the options that select the cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    options: Vec<OsString>,
}

impl Kubectl {
    /// Returns kubectl for a cluster. `None` selects what kubectl selects without the option.
    #[must_use]
    pub fn new(kubeconfig: Option<&PathBuf>, context: Option<&str>) -> Self {
        let mut options = Vec::new();
        if let Some(path) = kubeconfig {
            options.extend(["--kubeconfig".into(), path.into()]);
        }
        if let Some(context) = context {
            options.extend(["--context".into(), context.into()]);
        }
        Self { options }
    }

    /// Returns the objects that would exist after `kubectl apply` of these files or of the
    /// kustomization in a directory, in the order of the files. The API server stores nothing
    /// (`dryRun=All`).
    ///
    /// # Errors
    /// kubectl is not installed, or it or the API server rejects an object.
    pub fn would_apply(
        &self,
        files: &[PathBuf],
        kustomize: Option<&PathBuf>,
    ) -> Result<Vec<Value>> {
        if files.is_empty() && kustomize.is_none() {
            return Ok(Vec::new());
        }
        let mut command =
            self.command(&["apply", "--dry-run=server", "--show-managed-fields", "-o", "json"]);
        for file in files {
            command.arg("-f").arg(file);
        }
        if let Some(directory) = kustomize {
            command.arg("-k").arg(directory);
        }
        objects(command)
    }

    /// Returns those objects in these files that exist.
    ///
    /// # Errors
    /// kubectl is not installed, or cannot read the files or the objects.
    pub fn existing(&self, files: &[PathBuf]) -> Result<Vec<Value>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = self.command(&["get", "--ignore-not-found", "-o", "json"]);
        for file in files {
            command.arg("-f").arg(file);
        }
        objects(command)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(&self.options).args(words);
        command.stdin(Stdio::inherit()).stderr(Stdio::piped());
        command
    }
}

/// Runs kubectl, and returns the objects that it prints.
fn objects(mut command: Command) -> Result<Vec<Value>> {
    let output =
        command.output().context("cannot run kubectl: install it, and add it to the PATH")?;
    if !output.status.success() {
        bail!("kubectl: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    if output.stdout.is_empty() {
        return Ok(Vec::new());
    }
    let mut printed: Value =
        serde_json::from_slice(&output.stdout).context("kubectl printed no JSON")?;
    if printed["kind"] != "List" {
        return Ok(vec![printed]);
    }
    Ok(serde_json::from_value(printed["items"].take())?)
}

//! A lab's folder under `/run/ferrolb-lab`: what it is, what runs in it, and who is at work on it. The owner's lock ends with its process
//! by the kernel's own hand, so a killed owner leaves a lab that anybody may clean.

use crate::setup::kubernetes::Version;
use crate::topology::{self, CONTROL_PLANE, Families, Host, LabName};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ROOT: &str = "/run/ferrolb-lab";
const OWNER: &str = "owner";
const FACTS: &str = "lab.json";

/// What is remembered of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub nodes: u8,
    /// A lab that an older checkout keeps is one of both, and must not be taken for one that was left.
    #[serde(default)]
    pub families: Families,
    /// kube-proxy's mode; none: there are no kube-proxies.
    pub proxy_mode: Option<String>,
    /// Whether its nodes renew leases.
    #[serde(default)]
    pub leases: bool,
    /// The folder with kube-apiserver, kubectl and the rest.
    pub kubernetes: PathBuf,
    /// Which Kubernetes that is.
    #[serde(default)]
    pub version: Version,
    /// The folder with gobgpd and gobgp, where each node runs one and there are routers' hosts.
    #[serde(default)]
    pub gobgp: Option<PathBuf>,
    /// The routers' hosts are containers of an engine of the lab's own.
    #[serde(default)]
    pub docker: bool,
    /// Its nodes are machines with kubelets, made by kubeadm; the first is the control plane.
    #[serde(default)]
    pub kubeadm: bool,
    /// A test's story is told in it: its API server writes down what FerroLB's accounts ask, and what Kubernetes itself runs yields, where no kubelet runs it.
    #[serde(default)]
    pub story: bool,
    /// It stands on its own: whoever raised it has finished and gone.
    pub kept: bool,
}

impl Facts {
    /// Every host of the lab.
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts = topology::hosts(self.nodes, self.gobgp.is_some());
        hosts.retain(|host| !self.kubeadm || host.name != CONTROL_PLANE);
        hosts
    }

    /// Whether a host is a machine of its own, not only a network namespace.
    pub fn is_machine(&self, host: &str) -> bool {
        self.kubeadm && topology::node_index(host).is_some()
    }

    /// Whether a host is a container.
    pub fn is_container(&self, host: &Host) -> bool {
        self.docker && topology::routers::hosts().contains(host)
    }
}

/// A lab's folder, and the right to change the lab while its owner file is locked.
#[derive(Debug)]
pub struct State {
    pub name: LabName,
    path: PathBuf,
    /// Held for its lock, which is let go with it.
    _owner: Option<File>,
}

impl State {
    /// Makes the folder of a new lab, owned by this process from its first moment: it is filled aside and renamed into place.
    ///
    /// # Errors
    /// When a lab of this name exists, or `/run` cannot be written.
    pub fn create(name: &LabName, facts: &Facts) -> Result<Self> {
        let (path, aside) = (folder(name), Path::new(ROOT).join(format!(".{name}.{}", std::process::id())));
        for part in ["processes", "logs"] {
            fs::create_dir_all(aside.join(part)).with_context(|| format!("cannot make {}", aside.display()))?;
        }
        let owner = File::create(aside.join(OWNER))?;
        owner.lock()?;
        fs::write(aside.join(OWNER), std::process::id().to_string())?;
        fs::write(aside.join(FACTS), serde_json::to_vec_pretty(facts)?)?;
        if let Err(error) = fs::rename(&aside, &path) {
            fs::remove_dir_all(&aside)?;
            return Err(error)
                .with_context(|| format!("a lab named {name} is already there: `cargo lab --name {name} down`"));
        }
        Ok(Self { name: name.clone(), path, _owner: Some(owner) })
    }

    /// The folder of a standing lab, to look at.
    ///
    /// # Errors
    /// When there is no lab of this name.
    pub fn open(name: &LabName) -> Result<Self> {
        let path = folder(name);
        if !path.join(FACTS).is_file() {
            bail!(
                "there is no lab named {name}: `cargo lab status` lists them, `cargo lab --name {name} up` raises it"
            );
        }
        Ok(Self { name: name.clone(), path, _owner: None })
    }

    /// The folder of a lab with the right to change it; none when there is no such lab.
    ///
    /// # Errors
    /// When a living process is at work on it: it is named.
    pub fn claim(name: &LabName) -> Result<Option<Self>> {
        let path = folder(name);
        loop {
            let Ok(owner) = File::open(path.join(OWNER)) else { return Ok(None) };
            match owner.try_lock() {
                Ok(()) if same_file(&owner, &path.join(OWNER)) => {
                    return Ok(Some(Self { name: name.clone(), path, _owner: Some(owner) }));
                }
                // Taken down and perhaps raised anew since it was opened.
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the lab"),
                Err(TryLockError::WouldBlock) => bail!(
                    "process {} is at work on the lab {name}: stop it first (Ctrl-C there), or take another --name",
                    fs::read_to_string(path.join(OWNER)).unwrap_or_default()
                ),
            }
        }
    }

    /// What is remembered of the lab.
    ///
    /// # Errors
    /// When the folder is going away.
    pub fn facts(&self) -> Result<Facts> {
        let text = fs::read(self.path.join(FACTS)).with_context(|| format!("the lab {} is incomplete", self.name))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Says that the lab stands on its own from now on.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn keep(&self) -> Result<()> {
        let facts = Facts { kept: true, ..self.facts()? };
        Ok(fs::write(self.path.join(FACTS), serde_json::to_vec_pretty(&facts)?)?)
    }

    /// Whether the folder is still there.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// A file of the lab.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// Removes the folder: the last act of taking a lab down.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))?;
        // The last lab takes the common folder along; while others stand this fails, as it should.
        let _ = fs::remove_dir(ROOT);
        Ok(())
    }
}

/// The names of all labs that have a folder.
pub fn labs() -> Vec<LabName> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let mut labs: Vec<LabName> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    labs.sort();
    labs
}

/// Where the logs of a lab's processes are.
pub fn logs(name: &LabName) -> PathBuf {
    folder(name).join("logs")
}

/// Removes what a process left that was killed while it made a lab's folder.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_unfinished() -> Result<()> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()) {
        let maker = path.file_name().and_then(|name| unfinished_by(name.to_str()?));
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let _ = fs::remove_dir(ROOT);
    Ok(())
}

/// Who makes the folder of this name, if it is one that is being made: `.LAB.PID`.
fn unfinished_by(name: &str) -> Option<u32> {
    name.strip_prefix('.')?.split_once('.')?.1.parse().ok()
}

fn folder(name: &LabName) -> PathBuf {
    Path::new(ROOT).join(name.to_string())
}

fn same_file(open: &File, path: &Path) -> bool {
    match (open.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_that_is_being_made_has_a_maker() {
        for (name, maker) in [(".demo.4711", Some(4711)), ("demo", None), (".demo", None), (".demo.x", None)] {
            assert_eq!(unfinished_by(name), maker, "{name}");
        }
    }
}

//! Reads objects from files, and writes manifests. Performs file I/O.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{ManifestFile, Objects};

/// Suffixes of the files that a directory contributes.
const SUFFIXES: [&str; 3] = ["yaml", "yml", "json"];

/// Maximum depth of the objects in a file. The schemas of CRDs are the deepest ones.
const DEPTH_MAX: usize = 512;
/// Maximum number of YAML aliases in a file.
const ALIASES_MAX: usize = 100;

/// Reads the objects in files, and in the files of directories.
///
/// # Errors
/// A file cannot be read, is neither YAML nor JSON, or has an object with an invalid name.
pub fn read(paths: &[PathBuf]) -> Result<Objects> {
    let mut values = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let name = file.display();
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
            let documents =
                parse(&text).with_context(|| format!("{name} is neither YAML nor JSON"))?;
            if let Some(name) = documents.iter().find_map(bad_name) {
                bail!("{file:?} has an object with a control character in its name: {name:?}");
            }
            values.extend(documents);
        }
    }
    Ok(Objects::new(values))
}

/// Returns the first name or namespace of an object, or of the objects of a list, that the API
/// server would not accept, and that could add a line to a command.
fn bad_name(object: &Value) -> Option<&str> {
    let names = ["/metadata/name", "/metadata/namespace"];
    let mut names = names.iter().filter_map(|path| object.pointer(path)?.as_str());
    let items = object.get("items").and_then(Value::as_array);
    names
        .find(|name| name.contains(char::is_control))
        .or_else(|| items.into_iter().flatten().find_map(bad_name))
}

/// Returns the documents of a file. JSON is also YAML, but its own parser is faster.
fn parse(text: &str) -> Result<Vec<Value>> {
    let json = serde_json::Deserializer::from_str(text).into_iter();
    if let Ok(documents) = json.collect::<Result<_, _>>() {
        return Ok(documents);
    }
    // The output of kubectl has no aliases, and may be large.
    let budget = serde_saphyr::budget! {
        max_events: usize::MAX,
        max_nodes: usize::MAX,
        max_documents: usize::MAX,
        max_total_scalar_bytes: usize::MAX,
        max_depth: DEPTH_MAX,
        max_aliases: ALIASES_MAX,
    };
    let options = serde_saphyr::options! { budget: budget };
    Ok(serde_saphyr::from_multiple_with_options(text, options)?)
}

/// Returns a file itself, or the files in a directory, sorted.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let context = || format!("cannot read {}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(context)? {
        let file = entry.with_context(context)?.path();
        let suffix = file.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if SUFFIXES.contains(&suffix) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Writes files with these names and texts into a directory, and creates it.
///
/// # Errors
/// A file exists, or cannot be written. No file is written if one of them exists.
pub fn write(directory: &Path, files: &[(&str, String)]) -> Result<()> {
    if let Some(path) = files.iter().map(|(name, _)| directory.join(name)).find(|it| it.exists()) {
        bail!("{} exists: delete it, or choose another directory with --to", path.display());
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for (name, text) in files {
        let path = directory.join(name);
        let mut created = create_options()
            .open(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        created
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Returns the options for a new file. Only its owner may read it: BGPPeers may have passwords.
#[cfg(unix)]
fn create_options() -> fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
}

/// Returns the options for a new file. It inherits the permissions of the directory.
#[cfg(not(unix))]
fn create_options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    options
}

impl ManifestFile {
    /// Returns the objects as YAML documents.
    ///
    /// # Errors
    /// An object has no form in YAML.
    pub fn yaml(&self) -> Result<String> {
        let documents = self.objects.iter().map(serde_saphyr::to_string);
        Ok(documents.collect::<Result<Vec<_>, _>>()?.join("---\n"))
    }
}

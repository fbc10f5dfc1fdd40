//! License texts of all dependencies of a release, from the sources that the build used.

use super::sbom::{Dependency, GO_LIBRARY};
use crate::run;
use crate::setup::{self, go, repository};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// File with the texts.
pub(super) const FILE: &str = "THIRD-PARTY-LICENSES.txt";
/// Beginnings of the names of files with a license or a notice, in lower case.
const NAMES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];
/// License of FerroLB. The file of the repository is also the text for a crate that has this
/// license and no file.
const OWN_LICENSE: &str = "Apache-2.0";

/// Sources of a crate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Crate {
    folder: PathBuf,
    license: String,
    repository: String,
}

/// Writes the license texts of crates and of Go modules into the folder of a release. Crates of
/// this repository have its license, and are left out. Returns the number of the others.
///
/// # Errors
/// If a dependency has no license text.
pub fn write(
    crates: &BTreeSet<Dependency>,
    modules: &BTreeSet<Dependency>,
    folder: &Path,
) -> Result<usize> {
    let all = crates_of_the_lock()?;
    let mut texts = BTreeMap::new();
    for (dependency, source) in crates.iter().filter_map(|it| Some((it, all.get(it)?))) {
        texts.insert(dependency, crate_texts(source, &all)?);
    }
    for module in modules {
        texts.insert(module, texts_in(&module_folder(module)?)?);
    }
    let mut all = String::new();
    for (Dependency { name, version }, texts) in &texts {
        ensure!(!texts.is_empty(), "{name} {version} has no license text: add it to {FILE}");
        writeln!(all, "==== {name} {version}\n\n{}", texts.join("\n"))?;
    }
    fs::write(folder.join(FILE), all)?;
    Ok(texts.len())
}

/// Returns the sources of all crates in Cargo.lock, except those of this repository.
fn crates_of_the_lock() -> Result<BTreeMap<Dependency, Crate>> {
    let mut cargo = setup::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&run::run(&mut cargo)?)?;
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let source = |package: &Value| {
        package["source"].as_str()?;
        let manifest = PathBuf::from(package["manifest_path"].as_str()?);
        let dependency =
            Dependency { name: text(package, "name")?, version: text(package, "version")? };
        let source = Crate {
            folder: manifest.parent()?.to_owned(),
            license: text(package, "license").unwrap_or_default(),
            repository: text(package, "repository").unwrap_or_default(),
        };
        Some((dependency, source))
    };
    Ok(metadata["packages"].as_array().into_iter().flatten().filter_map(source).collect())
}

/// Returns the texts of a crate: those in its folder, those of a crate of the same repository with
/// the same license, or the file of this repository.
fn crate_texts(source: &Crate, all: &BTreeMap<Dependency, Crate>) -> Result<Vec<String>> {
    let is_sibling = |it: &&Crate| {
        !it.repository.is_empty()
            && (&it.repository, &it.license) == (&source.repository, &source.license)
    };
    for folder in [source].into_iter().chain(all.values().filter(is_sibling)) {
        let texts = texts_in(&folder.folder)?;
        if !texts.is_empty() {
            return Ok(texts);
        }
    }
    let own = || fs::read_to_string(repository().join("LICENSE"));
    Ok(if source.license == OWN_LICENSE { vec![own()?] } else { Vec::new() })
}

/// Returns the folder with the sources of a Go module, and downloads them if they are missing.
fn module_folder(Dependency { name, version }: &Dependency) -> Result<PathBuf> {
    if name == GO_LIBRARY {
        // Go's own library has its license in the folder of Go.
        let root = run::run(go::command()?.args(["env", "GOROOT"]))?;
        return Ok(PathBuf::from(root.trim()));
    }
    go::source(name, &format!("v{version}"))
}

/// Returns the contents of all files with a license or a notice in a folder.
fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|begin| name.starts_with(begin)) && entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let read = |file: &PathBuf| Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned());
    files.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_a_file_has_the_text_of_its_repository() {
        let folder = std::env::temp_dir().join(format!("ferrolb-licenses-{}", std::process::id()));
        let of = |name: &str, license: &str, repository: &str| {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).unwrap();
            Crate { folder, license: license.to_owned(), repository: repository.to_owned() }
        };
        let (with, without) = (of("with", "MIT", "r"), of("without", "MIT", "r"));
        fs::write(with.folder.join("LICENSE-MIT"), "mit").unwrap();
        fs::write(with.folder.join("readme"), "no").unwrap();
        let dependency = Dependency { name: "with".to_owned(), version: "1.0.0".to_owned() };
        let all = BTreeMap::from([(dependency, with.clone())]);
        let texts = [with, without, of("other", "MIT", "other"), of("own", OWN_LICENSE, "other")]
            .map(|it| crate_texts(&it, &all).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(texts[0], ["mit"]);
        assert_eq!(texts[1], ["mit"]);
        assert!(texts[2].is_empty());
        assert!(texts[3][0].contains("Apache License"));
    }
}

//! SBOMs of the programs, in CycloneDX's form: syft reads the dependencies that cargo auditable and
//! Go store in each program. `check` compares them with the lists of cargo and of Go.

mod check;

use super::crates::Crates;
use crate::run;
use crate::setup::images::commit;
use crate::setup::{go, installers};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// End of the names of files with an SBOM (CycloneDX, recognized file patterns).
const EXTENSION: &str = ".cdx.json";
/// Name of Go's own library.
pub(super) const GO_LIBRARY: &str = "stdlib";

/// Where the dependencies of a program are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A package of this repository, built for a target.
    Package { name: &'static str, target: &'static str },
    /// GoBGP's Go module.
    GoBgp,
}

/// A dependency of a program: its name, and its version without Go's prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    pub name: String,
    pub version: String,
}

/// Writes the SBOM of a program, under a name such as `controller-amd64`, into the folder of a
/// release. Returns the dependencies.
///
/// # Errors
/// If the program contains no list of its dependencies, or another one than the lock file.
pub fn write(
    name: &str,
    program: &Path,
    source: Source,
    locked: &Crates,
    folder: &Path,
) -> Result<BTreeSet<Dependency>> {
    let mut syft = installers::syft()?;
    syft.args(["scan", "--quiet", "--output", "cyclonedx-json"]);
    // The licenses of Go modules are in their sources, which the build has downloaded.
    syft.env("SYFT_GOLANG_SEARCH_LOCAL_MOD_CACHE_LICENSES", "true");
    syft.env("SYFT_GOLANG_LOCAL_MOD_CACHE_DIR", go::module_cache()?);
    syft.arg(format!("file:{}", program.display()));
    let mut sbom: Value = serde_json::from_str(&run::run(&mut syft)?)?;
    // The number and the time differ in each run, and the reference in each folder.
    sbom.as_object_mut().context("syft printed no object")?.remove("serialNumber");
    sbom["metadata"]["timestamp"] = commit().map(|(_, time)| time).into();
    sbom["metadata"]["component"]["bom-ref"] = name.into();
    let found = components(&sbom);
    check::check(source, program, &found, locked)
        .with_context(|| format!("the SBOM of {name} is wrong"))?;
    add_licenses(&mut sbom, locked);
    fs::write(folder.join(file(name)), serde_json::to_string_pretty(&sbom)? + "\n")?;
    Ok(found)
}

/// Returns the name of the file with an SBOM.
pub fn file(name: &str) -> String {
    format!("{name}{EXTENSION}")
}

/// Returns the SBOMs of an image in the folder of a release, one for each architecture.
///
/// # Errors
/// If there is none.
pub(super) fn of(component: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if name.starts_with(&format!("{component}-")) && name.ends_with(EXTENSION) {
            found.push(entry.path());
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "{component} has no SBOM: build the release again");
    Ok(found)
}

/// Returns the libraries in an SBOM.
fn components(sbom: &Value) -> BTreeSet<Dependency> {
    sbom["components"].as_array().into_iter().flatten().filter_map(library).collect()
}

fn library(component: &Value) -> Option<Dependency> {
    let (name, version) = (component["name"].as_str()?, component["version"].as_str()?);
    (component["type"] == "library").then(|| Dependency {
        name: name.to_owned(),
        version: version.trim_start_matches('v').to_owned(),
    })
}

/// Adds the licenses of the crates, which the programs do not contain.
fn add_licenses(sbom: &mut Value, locked: &Crates) {
    let components = sbom.get_mut("components").and_then(Value::as_array_mut);
    for component in components.into_iter().flatten() {
        let of_crate = library(component).and_then(|it| locked.get(&it));
        if let Some(license) = of_crate.map(|it| &it.license).filter(|it| !it.is_empty()) {
            component["licenses"] = json!([{"expression": license}]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::crates::Crate;
    use super::*;

    fn dependency(name: &str, version: &str) -> Dependency {
        Dependency { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn the_libraries_of_an_sbom_are_its_dependencies() {
        let mut sbom = json!({"components": [
            {"type": "library", "name": "a", "version": "v1.0.0"},
            {"type": "file", "name": "b", "version": "1"},
            {"type": "library", "name": "c"},
        ]});
        assert_eq!(components(&sbom), BTreeSet::from([dependency("a", "1.0.0")]));
        let locked = Crate { license: "MIT".to_owned(), ..Crate::default() };
        add_licenses(&mut sbom, &Crates::from([(dependency("a", "1.0.0"), locked)]));
        assert_eq!(sbom["components"][0]["licenses"], json!([{"expression": "MIT"}]));
        assert!(sbom["components"][1].get("licenses").is_none());
    }
}

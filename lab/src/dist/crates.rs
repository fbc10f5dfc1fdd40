//! The crates in Cargo.lock, as cargo describes them, with the folders of their sources.

use super::sbom::Dependency;
use crate::run;
use crate::setup;
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crate {
    /// Folder with its sources.
    pub(super) folder: PathBuf,
    /// True for a crate of this repository.
    pub(super) is_own: bool,
    /// Expression of its licenses (SPDX).
    pub(super) license: String,
    pub(super) repository: String,
}

/// All crates in Cargo.lock.
pub type Crates = BTreeMap<Dependency, Crate>;

/// Reads the crates in Cargo.lock.
///
/// # Errors
/// If Cargo.lock does not agree with the manifests, or a crate cannot be downloaded.
pub fn read() -> Result<Crates> {
    let mut cargo = setup::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&run::run(&mut cargo)?)?;
    Ok(metadata["packages"].as_array().into_iter().flatten().filter_map(parse).collect())
}

fn parse(package: &Value) -> Option<(Dependency, Crate)> {
    let text = |key: &str| package[key].as_str().map(str::to_owned);
    let manifest = PathBuf::from(text("manifest_path")?);
    let parsed = Crate {
        folder: manifest.parent()?.to_owned(),
        is_own: package["source"].is_null(),
        // Cargo also reads an older form, in which a slash separates alternatives.
        license: text("license").unwrap_or_default().replace('/', " OR "),
        repository: text("repository").unwrap_or_default(),
    };
    Some((Dependency { name: text("name")?, version: text("version")? }, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn packages_of_cargo_are_parsed() {
        let parsed = parse(&json!({
            "name": "a", "version": "1.0.0", "source": "registry", "license": "MIT/Apache-2.0",
            "manifest_path": "/crates/a/Cargo.toml", "repository": "r",
        }));
        let dependency = Dependency { name: "a".to_owned(), version: "1.0.0".to_owned() };
        let license = "MIT OR Apache-2.0".to_owned();
        let (folder, repository) = (PathBuf::from("/crates/a"), "r".to_owned());
        assert_eq!(
            parsed,
            Some((dependency, Crate { folder, is_own: false, license, repository }))
        );
        let own = json!({
            "name": "a", "version": "1.0.0", "source": null, "manifest_path": "/a/Cargo.toml",
        });
        assert!(parse(&own).is_some_and(|(_, it)| it.is_own));
        assert_eq!(parse(&json!({"name": "a"})), None);
    }
}

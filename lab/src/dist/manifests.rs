//! The files of a release for `kubectl apply`: the manifests of all installation methods, whose
//! images are pinned by digest, the CustomResourceDefinitions and the examples.

use super::{ReleaseImage, at_tag, pack};
use crate::run;
use crate::setup::repository;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Beginning of the names of the manifests in `deploy`.
const INSTALL: &str = "install";
const CRDS: &str = "crds.yaml";
const EXAMPLES: &str = "examples";

/// Writes the files into `folder`, with the images of `registry`.
///
/// # Errors
/// If a manifest has an image that is not built, or a file cannot be written.
pub(super) fn write(registry: &str, images: &[ReleaseImage], folder: &Path) -> Result<()> {
    for (name, text) in sources()? {
        fs::write(folder.join(name), pin(&text, registry, images)?)?;
    }
    let crds = fs::read_to_string(repository().join("deploy/base").join(CRDS))?;
    fs::write(folder.join(CRDS), crds)?;
    let tree = folder.join("tree");
    fs::create_dir_all(&tree)?;
    let examples = repository().join(EXAMPLES);
    run::run(Command::new("cp").arg("--recursive").arg(examples).arg(&tree))?;
    pack(&tree, &[EXAMPLES], &folder.join(format!("{EXAMPLES}.tar.gz"))).map(drop)
}

/// Returns the names and the contents of the manifests in `deploy`.
fn sources() -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(repository().join("deploy"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(INSTALL) && name.ends_with(".yaml") {
            sources.push((name, fs::read_to_string(entry.path())?));
        }
    }
    Ok(sources)
}

/// Replaces the names of the images by those of `registry`, with their digests, and the comment for
/// developers at the beginning by one for users.
fn pin(manifest: &str, registry: &str, images: &[ReleaseImage]) -> Result<String> {
    let pin_line = |line: &str| -> Result<String> {
        let Some((before, name)) = line.split_once("image: ") else { return Ok(line.to_owned()) };
        let of = |it: &&ReleaseImage| name == format!("ferrolb/{}:{}", it.component, it.version);
        let image = images.iter().find(of).with_context(|| format!("{name} is not built"))?;
        Ok(format!("{before}image: {}@{}", image.name(registry), image.digest))
    };
    let title = at_tag(&format!(
        "# FerroLB {}: https://github.com/ferrolb/ferrolb/blob/main/docs/install/manifests.md",
        env!("CARGO_PKG_VERSION")
    ));
    let lines = manifest.lines().skip_while(|line| line.starts_with('#')).map(pin_line);
    let lines = std::iter::once(Ok(title)).chain(lines).collect::<Result<Vec<_>>>()?;
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::release;
    use super::*;

    #[test]
    fn all_images_of_the_manifests_are_pinned_by_digest() {
        let digest = format!("@sha256:{}", "a".repeat(64));
        let sources = sources().unwrap();
        assert_eq!(sources.len(), 4);
        for (name, text) in sources {
            let pinned = pin(&text, "registry.example.com/ferrolb", &release()).unwrap();
            assert!(pinned.starts_with("# FerroLB 0.1.0: https://"), "{name}");
            assert!(!pinned.contains("Generated"), "{name}");
            let images: Vec<&str> =
                pinned.lines().filter_map(|line| Some(line.split_once("image: ")?.1)).collect();
            assert!(images.len() >= 2, "{name}: {images:?}");
            for image in images {
                let name = image.strip_suffix(&digest).expect("the image has the digest");
                assert!(name.starts_with("registry.example.com/ferrolb/"), "{image}");
            }
        }
        assert!(pin("image: other:1", "r", &release()).is_err());
    }
}

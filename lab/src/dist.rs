//! The folder of a release: images and chart as OCI layouts, manifests that pin the images by
//! digest, the programs for users, and checksums. Nothing is published here. The same programs and
//! the same commit result in the same files.

mod chart;
pub mod crates;
pub mod layout;
pub mod licenses;
mod manifests;
pub mod plugin;
pub mod provenance;
pub mod publish;
pub mod sbom;
pub mod site;

use crate::setup::images::BuiltProgram;
use crate::setup::images::archive;
use anyhow::{Context, Result};
pub use chart::K3S;
use layout::{Blob, Layout};
use std::fs;
use std::path::{Path, PathBuf};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Folder with the layout of each image.
const IMAGES: &str = "images";
/// The repository, in links to its files.
const REPOSITORY: &str = "/ferrolb/ferrolb/";
/// File with the provenance of the release.
const PROVENANCE: &str = "provenance.json";
/// File with the SHA-256 of each other file, in the format of `sha256sum`.
pub const CHECKSUMS: &str = "SHA256SUMS";

/// Parameters of the build of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Registry and path of the images and the chart.
    pub registry: String,
    /// Cargo's profile of the programs.
    pub profile: String,
    /// Repository, file and reference of the workflow of GitHub that runs the build.
    pub workflow: Option<String>,
}

impl Build {
    /// Returns the name of the chart in the registry, without its version.
    fn chart(&self) -> String {
        format!("{}/charts/ferrolb", self.registry)
    }

    /// Returns the chart and its version, as arguments of Helm.
    pub fn chart_arguments(&self) -> String {
        format!("oci://{} --version {}", self.chart(), env!("CARGO_PKG_VERSION"))
    }
}

/// An image of the release: its component, its tag and the digest of its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseImage {
    pub component: &'static str,
    pub version: &'static str,
    pub digest: String,
}

impl ReleaseImage {
    /// Returns the name of the image in a registry.
    fn name(&self, registry: &str) -> String {
        format!("{registry}/{}:{}", self.component, self.version)
    }
}

/// Writes what a cluster needs into `folder`: images, chart, manifests, and their provenance.
/// `programs` has the programs of all architectures.
///
/// # Errors
/// If a file cannot be written.
pub fn write(build: &Build, programs: &[BuiltProgram], folder: &Path) -> Result<Vec<ReleaseImage>> {
    let registry = &build.registry;
    let images = images(registry, programs, folder)?;
    manifests::write(registry, &images, folder)?;
    chart::write(build, &images, folder)?;
    provenance::write(build, folder)?;
    Ok(images)
}

/// Writes a layout for each image of `registry` into `folder/images`, with one index for all
/// architectures.
fn images(registry: &str, programs: &[BuiltProgram], folder: &Path) -> Result<Vec<ReleaseImage>> {
    let mut components: Vec<_> = programs.iter().map(BuiltProgram::component).collect();
    components.sort_unstable();
    components.dedup();
    let write = |component: &'static str| {
        let of_component = programs.iter().filter(|it| it.component() == component);
        let folder = folder.join(IMAGES).join(component);
        image(registry, &of_component.collect::<Vec<_>>(), &folder)
    };
    components.into_iter().map(write).collect()
}

fn image(registry: &str, programs: &[&BuiltProgram], folder: &Path) -> Result<ReleaseImage> {
    let first = programs.first().context("an image has a program")?;
    let mut layout = Layout::create(folder)?;
    let manifest = |program: &BuiltProgram| -> Result<(&'static str, Blob)> {
        let image = program.image(folder)?;
        let config = archive::config(&image, program.arch()).to_string();
        let config = layout.blob(CONFIG_TYPE, config.as_bytes())?;
        let layers = image.layers.iter().map(|layer| {
            let blob = layout.blob(LAYER_TYPE, &layer.compressed()?)?;
            layer.remove()?;
            Ok(blob)
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        Ok((program.arch().name(), layout.manifest(&config, &layers, &image.labels)?))
    };
    let manifests = programs.iter().map(|it| manifest(it)).collect::<Result<Vec<_>>>()?;
    let index = layout.image_index(&manifests, &first.labels())?;
    let (component, version) = (first.component(), first.version());
    let image = ReleaseImage { component, version, digest: index.digest.clone() };
    layout.name(&index, &image.name(registry));
    layout.finish()?;
    Ok(image)
}

/// Replaces the branch by the tag of the release in links to files of the repository.
fn at_tag(text: &str) -> String {
    let tag = concat!("v", env!("CARGO_PKG_VERSION"));
    let places = ["blob/main/", "tree/main/", "main/"];
    let replaced = |text: String, place: &str| {
        let [from, to] = [place, &place.replace("main", tag)].map(|it| format!("{REPOSITORY}{it}"));
        text.replace(&from, &to)
    };
    places.into_iter().fold(text.to_owned(), replaced)
}

/// Packs these files and folders below `tree` into a compressed archive, and removes `tree`.
/// Returns the content of the archive.
fn pack(tree: &Path, names: &[&str], file: &Path) -> Result<Vec<u8>> {
    let tar = file.with_extension("tar");
    archive::pack_names(tree, names, &tar)?;
    let packed = archive::compress(&tar)?;
    fs::write(file, &packed)?;
    fs::remove_file(&tar)?;
    fs::remove_dir_all(tree)?;
    Ok(packed)
}

/// Writes the checksums of all files below `folder`, in the order of their names. Returns the
/// number of files.
///
/// # Errors
/// If a file cannot be read.
pub fn checksums(folder: &Path) -> Result<usize> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let line = |file: &PathBuf| -> Result<String> {
        Ok(format!("{}  {}\n", archive::digest(file)?, file.strip_prefix(folder)?.display()))
    };
    let lines = files.iter().map(line).collect::<Result<String>>()?;
    fs::write(folder.join(CHECKSUMS), lines)?;
    Ok(files.len())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if entry.file_name() != CHECKSUMS {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn release() -> Vec<ReleaseImage> {
        let image = |component, version| ReleaseImage {
            component,
            version,
            digest: format!("sha256:{}", "a".repeat(64)),
        };
        vec![image("controller", "0.1.0"), image("speaker", "0.1.0"), image("gobgpd", "4.8.0")]
    }

    #[test]
    fn links_lead_to_the_files_of_the_tag() {
        let link = |branch: &str| {
            let page = format!("https://github.com/ferrolb/ferrolb/blob/{branch}/docs/cli.md");
            format!("{page} https://raw.githubusercontent.com/ferrolb/ferrolb/{branch}/a.svg")
        };
        assert_eq!(at_tag(&link("main")), link("v0.1.0"));
        assert_eq!(
            at_tag("https://github.com/ferrolb/ferrolb"),
            "https://github.com/ferrolb/ferrolb"
        );
    }

    #[test]
    fn checksums_name_every_file_but_their_own() {
        let folder = std::env::temp_dir().join(format!("ferrolb-sums-{}", std::process::id()));
        fs::create_dir_all(folder.join("b")).unwrap();
        fs::write(folder.join("b/c"), "abc").unwrap();
        fs::write(folder.join("a"), "").unwrap();
        let counts = [checksums(&folder).unwrap(), checksums(&folder).unwrap()];
        let text = fs::read_to_string(folder.join(CHECKSUMS)).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(counts, [2, 2]);
        let names: Vec<_> = text.lines().map(|line| &line[66..]).collect();
        assert_eq!(names, ["a", "b/c"]);
        assert!(
            text.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b/c")
        );
    }
}

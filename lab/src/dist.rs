//! The folder of a release: images and chart as OCI layouts, manifests that pin the images by
//! digest, the programs for users, and checksums. Nothing is published here. The same programs and
//! the same commit result in the same files.

pub mod layout;
pub mod licenses;
pub mod plugin;
pub mod provenance;
pub mod publish;
pub mod sbom;
pub mod site;

use crate::run;
use crate::setup::images::archive::{self, CREATED};
use crate::setup::images::{BuiltProgram, commit};
use crate::setup::repository;
use anyhow::{Context, Result, ensure};
use layout::{Blob, Layout};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media types of a chart (Helm, registries).
const CHART_CONFIG_TYPE: &str = "application/vnd.cncf.helm.config.v1+json";
const CHART_TYPE: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// Folder with the layout of each image.
const IMAGES: &str = "images";
/// Folder with the layout of the chart.
const CHART: &str = "chart";
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
    manifests(registry, &images, folder)?;
    chart(build, &images, folder)?;
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

/// Writes the manifests of all installation methods into `folder`, with the images of `registry` by
/// digest.
fn manifests(registry: &str, images: &[ReleaseImage], folder: &Path) -> Result<()> {
    for (name, text) in sources()? {
        fs::write(folder.join(name), pin(&text, registry, images)?)?;
    }
    Ok(())
}

/// Returns the names and the contents of the manifests in `deploy`.
fn sources() -> Result<Vec<(String, String)>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(repository().join("deploy"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("install") && name.ends_with(".yaml") {
            sources.push((name, fs::read_to_string(entry.path())?));
        }
    }
    Ok(sources)
}

/// Replaces the names of the images by those of `registry`, with their digests.
fn pin(manifest: &str, registry: &str, images: &[ReleaseImage]) -> Result<String> {
    let pin_line = |line: &str| -> Result<String> {
        let Some((before, name)) = line.split_once("image: ") else { return Ok(line.to_owned()) };
        let of = |it: &&ReleaseImage| name == format!("ferrolb/{}:{}", it.component, it.version);
        let image = images.iter().find(of).with_context(|| format!("{name} is not built"))?;
        Ok(format!("{before}image: {}@{}", image.name(registry), image.digest))
    };
    let lines = manifest.lines().map(pin_line).collect::<Result<Vec<_>>>()?;
    Ok(lines.join("\n") + "\n")
}

/// Packs the chart into `folder`, with the images of `registry` by digest, and writes its layout
/// into `folder/chart`.
fn chart(build: &Build, images: &[ReleaseImage], folder: &Path) -> Result<()> {
    let (tree, version) = (folder.join("tree"), env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(&tree)?;
    let source = repository().join("deploy/helm/ferrolb");
    run::run(Command::new("cp").arg("--recursive").arg(&source).arg(&tree))?;
    let values = tree.join("ferrolb/values.yaml");
    fs::write(&values, pin_values(&fs::read_to_string(&values)?, &build.registry, images)?)?;
    let packed = pack(&tree, &["ferrolb"], &folder.join(format!("ferrolb-{version}.tgz")))?;
    let chart = fs::read_to_string(source.join("Chart.yaml"))?;
    let config: Value = serde_saphyr::from_str(&chart).context("Chart.yaml cannot be read")?;
    let mut layout = Layout::create(&folder.join(CHART))?;
    let config = layout.blob(CHART_CONFIG_TYPE, config.to_string().as_bytes())?;
    let layer = layout.blob(CHART_TYPE, &packed)?;
    let created = commit().map(|(_, time)| (CREATED, time));
    let manifest = layout.manifest(&config, &[layer], &created.into_iter().collect())?;
    layout.name(&manifest, &format!("{}:{version}", build.chart()));
    layout.finish()
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

/// Replaces the repositories and the digests in the chart's values.
fn pin_values(values: &str, registry: &str, images: &[ReleaseImage]) -> Result<String> {
    let (mut lines, mut digest, mut pinned) = (Vec::new(), None, 0);
    for line in values.lines() {
        let word = line.trim_start();
        let indent = &line[..line.len() - word.len()];
        let named = |it: &&ReleaseImage| word == format!("repository: ferrolb/{}", it.component);
        if let Some(image) = images.iter().find(named) {
            digest = Some(&image.digest);
            lines.push(format!("{indent}repository: {registry}/{}", image.component));
        } else if let Some(digest) = digest.take_if(|_| word == "digest: \"\"") {
            pinned += 1;
            lines.push(format!("{indent}digest: {digest}"));
        } else {
            lines.push(line.to_owned());
        }
    }
    ensure!(pinned == images.len(), "values.yaml has {pinned} images, not {}", images.len());
    Ok(lines.join("\n") + "\n")
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

    fn release() -> Vec<ReleaseImage> {
        let image = |component, version| ReleaseImage {
            component,
            version,
            digest: format!("sha256:{}", "a".repeat(64)),
        };
        vec![image("controller", "0.1.0"), image("speaker", "0.1.0"), image("gobgpd", "4.8.0")]
    }

    #[test]
    fn all_images_of_the_manifests_and_the_chart_are_pinned_by_digest() {
        let digest = format!("@sha256:{}", "a".repeat(64));
        let sources = sources().unwrap();
        assert_eq!(sources.len(), 4);
        for (name, text) in sources {
            let pinned = pin(&text, "registry.example.com/ferrolb", &release()).unwrap();
            let images: Vec<&str> =
                pinned.lines().filter_map(|line| Some(line.split_once("image: ")?.1)).collect();
            assert!(images.len() >= 2, "{name}: {images:?}");
            for image in images {
                let name = image.strip_suffix(&digest).expect("the image has the digest");
                assert!(name.starts_with("registry.example.com/ferrolb/"), "{image}");
            }
        }
        assert!(pin("image: other:1", "r", &release()).is_err());
        let values = repository().join("deploy/helm/ferrolb/values.yaml");
        let values = fs::read_to_string(values).unwrap();
        let pinned = pin_values(&values, "r", &release()).unwrap();
        assert_eq!(pinned.matches("digest: sha256:").count(), 3);
        assert!(!pinned.contains("repository: ferrolb/"));
        let mut other = release();
        other[0].component = "other";
        assert!(pin_values(&values, "r", &other).is_err());
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

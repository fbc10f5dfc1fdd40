//! The chart of a release: its values pin the images by digest. Its page and the HelmChart for k3s
//! have the chart's own address.

use super::layout::Layout;
use super::{Build, ReleaseImage, at_tag, pack};
use crate::run;
use crate::setup::images::archive::CREATED;
use crate::setup::images::commit;
use crate::setup::repository;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Folder with the layout of the chart.
pub(super) const CHART: &str = "chart";
/// Media types of a chart (Helm, registries).
const CONFIG_TYPE: &str = "application/vnd.cncf.helm.config.v1+json";
const CONTENT_TYPE: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// File of the HelmChart for k3s, in `deploy` and in the folder of the release.
pub const K3S: &str = "k3s-helmchart.yaml";
/// Address of the chart in the files of the repository.
const EXAMPLE: &str = "oci://registry.example.com/ferrolb/charts/ferrolb";

/// Packs the chart into `folder`, and writes its layout into `folder/chart`. Also writes the
/// HelmChart for k3s.
///
/// # Errors
/// If a file of the repository lacks an image or the address, or a file cannot be written.
pub(super) fn write(build: &Build, images: &[ReleaseImage], folder: &Path) -> Result<()> {
    let k3s = fs::read_to_string(repository().join("deploy").join(K3S))?;
    fs::write(folder.join(K3S), with_address(&k3s, &format!("oci://{}", build.chart()))?)?;
    let (tree, version) = (folder.join("tree"), env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(&tree)?;
    let source = repository().join("deploy/helm/ferrolb");
    run::run(Command::new("cp").arg("--recursive").arg(&source).arg(&tree))?;
    let copy = tree.join("ferrolb");
    let change = |name: &str, change: &dyn Fn(String) -> Result<String>| -> Result<String> {
        let text = change(fs::read_to_string(copy.join(name))?)?;
        fs::write(copy.join(name), &text)?;
        Ok(text)
    };
    change("values.yaml", &|text| pin(&text, &build.registry, images))?;
    change("README.md", &|text| {
        let text = with_address(&text, &build.chart_arguments())?;
        Ok(at_tag(&pin(&text, &build.registry, images)?))
    })?;
    let chart = change("Chart.yaml", &|text| Ok(at_tag(&text)))?;
    let packed = pack(&tree, &["ferrolb"], &folder.join(format!("ferrolb-{version}.tgz")))?;
    let config: Value = serde_saphyr::from_str(&chart).context("Chart.yaml cannot be read")?;
    let mut layout = Layout::create(&folder.join(CHART))?;
    let config = layout.blob(CONFIG_TYPE, config.to_string().as_bytes())?;
    let layer = layout.blob(CONTENT_TYPE, &packed)?;
    let created = commit().map(|(_, time)| (CREATED, time));
    let manifest = layout.manifest(&config, &[layer], &created.into_iter().collect())?;
    layout.name(&manifest, &format!("{}:{version}", build.chart()));
    layout.finish()
}

/// Replaces the address of the chart in a file of the repository.
fn with_address(text: &str, address: &str) -> Result<String> {
    ensure!(text.contains(EXAMPLE), "write {EXAMPLE} into this file:\n{text}");
    Ok(text.replace(EXAMPLE, address))
}

/// Replaces the repositories and the digests in the chart's values, or in the table of its page: an
/// empty digest belongs to the repository before it.
fn pin(text: &str, registry: &str, images: &[ReleaseImage]) -> Result<String> {
    let (mut lines, mut digest, mut pinned) = (Vec::new(), None, 0);
    for line in text.lines() {
        let name = |it: &ReleaseImage| format!("ferrolb/{}", it.component);
        let named = |it: &&ReleaseImage| line.contains("repository") && line.contains(&name(it));
        if let Some(image) = images.iter().find(named) {
            digest = Some(&image.digest);
            lines.push(line.replace(&name(image), &format!("{registry}/{}", image.component)));
        } else if let Some(digest) = digest.take_if(|_| line.contains("digest")) {
            pinned += 1;
            lines.push(line.replace("\"\"", digest));
        } else {
            lines.push(line.to_owned());
        }
    }
    ensure!(pinned == images.len(), "{pinned} images have a digest, not {}", images.len());
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::release;
    use super::*;

    #[test]
    fn values_and_page_name_each_image_by_digest() {
        for file in ["values.yaml", "README.md"] {
            let file = repository().join("deploy/helm/ferrolb").join(file);
            let text = fs::read_to_string(file).unwrap();
            let pinned = pin(&text, "r", &release()).unwrap();
            let of = |part: &str| pinned.matches(part).count();
            assert_eq!(of(&format!("sha256:{}", "a".repeat(64))), 3);
            let names = ["ferrolb/controller", "ferrolb/speaker", "ferrolb/gobgpd"];
            assert_eq!(names.map(of), [0; 3]);
            assert_eq!(["r/controller", "r/speaker", "r/gobgpd"].map(of), [1; 3]);
            let mut other = release();
            other[0].component = "other";
            assert!(pin(&text, "r", &other).is_err());
        }
    }
}

//! Contents of a release: the registry has complete images and a complete chart, and each image has
//! the labels and the only program of its component. The pods run these images by digest.

use super::release::Release;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::dist::{K3S, ReleaseImage};
use ferrolb_lab::setup::images::archive;
use ferrolb_lab::setup::installers;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, run, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Maximum time until the pods of another release have ended.
const PODS_MAX: Duration = Duration::from_secs(60);

/// Checks the images and the chart of a release in the registry.
pub(super) fn check(lab: &Lab, release: &Release) -> Result<()> {
    crane(lab, &["validate", "--remote", &chart(release)?])?;
    release.images.iter().try_for_each(|image| check_image(lab, release, image))
}

/// Returns the name of the chart, as the HelmChart for k3s has it.
fn chart(release: &Release) -> Result<String> {
    let text = fs::read_to_string(release.folder.join(K3S))?;
    let spec = serde_saphyr::from_str::<Value>(&text)?["spec"].take();
    let (address, version) = spec["chart"].as_str().zip(spec["version"].as_str()).context(text)?;
    let name = address.strip_prefix("oci://").context("the chart has no registry")?;
    Ok(format!("{name}:{version}"))
}

fn check_image(lab: &Lab, release: &Release, image: &ReleaseImage) -> Result<()> {
    let name = release.name(image);
    let built = release.programs.iter().find(|it| it.component() == image.component);
    let built = built.context("the image has no program")?;
    crane(lab, &["validate", "--remote", &name])?;
    let platform = format!("--platform=linux/{}", built.arch().name());
    let config: Value = serde_json::from_str(&crane(lab, &["config", &platform, &name])?)?;
    let labels = &config["config"]["Labels"];
    ensure!(*labels == json!(built.labels()), "{name} has the labels {labels}");
    let layers = &config["rootfs"]["diff_ids"];
    ensure!(layers.as_array().is_some_and(|it| it.len() == 1), "{name} has the layers {layers}");
    let folder = lab.state().file(&format!("{}-files", image.component));
    fs::create_dir_all(&folder)?;
    let tar = folder.with_extension("tar");
    crane(lab, &["export", &platform, &name, &tar.display().to_string()])?;
    run::run(Command::new("tar").arg("-xf").arg(&tar).arg("--directory").arg(&folder))?;
    let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
    let files = files.collect::<Result<Vec<_>>>()?;
    let [program] = files.as_slice() else { anyhow::bail!("{name} has the files {files:?}") };
    ensure!(archive::digest(program)? == archive::digest(built.program())?, "{program:?} differs");
    let mut readelf = Command::new("readelf");
    let headers = run::run(readelf.args(["--program-headers", "--wide"]).arg(program))?;
    let is_static = headers.contains(" LOAD ") && !headers.contains(" INTERP ");
    ensure!(is_static, "{program:?} is not static:\n{headers}");
    Ok(())
}

fn crane(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut crane = installers::crane()?;
    crane.args(arguments).arg("--insecure");
    lab.within(CLIENT, || run::run(&mut crane))?
}

/// Checks that these components have pods, that every pod names and runs an image of the release by
/// digest, and that no node has an image of FerroLB under another name.
pub(super) fn check_pods(lab: &Lab, release: &Release, components: &[&str]) -> Result<()> {
    let path = "jsonpath={range .items[*]}{.spec.containers[*].image} {.status.containerStatuses[*].imageID}{\"\\n\"}{end}";
    let of_line = |line: &str, image: &ReleaseImage| {
        let ReleaseImage { component, version, digest } = image;
        let named = format!("{}/{component}:{version}@{digest} ", release.registry);
        line.starts_with(&named) && line.ends_with(&format!("/{component}@{digest}"))
    };
    wait::until("only pods of the release run", PODS_MAX, || {
        let pods = lab.kubectl(&["-n", "ferrolb-system", "get", "pods", "-o", path])?;
        let mut found = BTreeSet::new();
        for line in pods.lines() {
            let image = release.images.iter().find(|image| of_line(line, image));
            let image = image.with_context(|| {
                format!("{line} is no image of the release {:?}", release.images)
            })?;
            found.insert(image.component);
        }
        ensure!(found == components.iter().copied().collect(), "only these pods run:\n{pods}");
        Ok(Some(()))
    })?;
    for node in lab.nodes() {
        let names = lab.exec(&node, &["ctr", "-n", "k8s.io", "images", "ls", "-q"])?;
        let other = names.lines().find(|name| name.starts_with("docker.io/ferrolb/"));
        ensure!(other.is_none(), "{node} has {other:?}");
    }
    Ok(())
}

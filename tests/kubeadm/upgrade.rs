//! Upgrade to another image with the same code. The lab has no registry, so the test gives the
//! images on every node a second tag.

use crate::web::ROLLOUT_MAX;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_lab::setup::images;
use ferrolb_proto::api::NAMESPACE;

/// Page on upgrades.
pub(crate) const PAGE: &str = "docs/install/upgrade.md";
/// Tag of the images to which the test upgrades.
pub(crate) const NEW_TAG: &str = "next";
/// Registry that containerd assumes for an image name without a registry.
const REGISTRY: &str = "docker.io";

/// Adds [`NEW_TAG`] to the images of both components on every node.
pub(crate) fn tag_images(lab: &Lab) -> Result<()> {
    let [controller, speaker, _] = images::names();
    for node in lab.nodes() {
        for image in [&controller, &speaker] {
            let [from, to] =
                [image, &with_new_tag(image)?].map(|image| format!("{REGISTRY}/{image}"));
            lab.exec(&node, &["ctr", "--namespace", "k8s.io", "images", "tag", &from, &to])?;
        }
    }
    Ok(())
}

/// Sets the images with the new tag in both workloads.
pub(crate) fn set_images(lab: &Lab) -> Result<()> {
    let [controller, speaker, _] = images::names();
    for (workload, container, image) in [
        ("deployment/controller", "controller", controller),
        ("daemonset/speaker", "speaker", speaker),
    ] {
        let image = format!("{container}={}", with_new_tag(&image)?);
        lab.kubectl(&["-n", NAMESPACE, "set", "image", workload, &image])?;
    }
    Ok(())
}

/// Returns the image name with the new tag.
fn with_new_tag(image: &str) -> Result<String> {
    let (name, _) = image.rsplit_once(':').with_context(|| format!("{image} has no tag"))?;
    Ok(format!("{name}:{NEW_TAG}"))
}

/// Waits until all pods of both components have been replaced and the new pods are ready.
pub(crate) fn wait_rolled_out(lab: &Lab) -> Result<()> {
    ["deployment/controller", "daemonset/speaker"].iter().try_for_each(|workload| {
        lab.kubectl(&["-n", NAMESPACE, "rollout", "status", workload, ROLLOUT_MAX]).map(drop)
    })
}

/// Returns the name, the image and the restart count of each pod of FerroLB.
pub(crate) fn pods(lab: &Lab) -> Result<String> {
    let columns = "custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image,STARTED:.status.containerStatuses[*].restartCount";
    lab.kubectl(&["-n", NAMESPACE, "get", "pods", "--no-headers", "-o", columns])
}

/// Checks that every pod of FerroLB runs an image with the new tag.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    let pods = pods(lab)?;
    let old: Vec<&str> = pods.lines().filter(|pod| !pod.contains(&format!(":{NEW_TAG}"))).collect();
    // Old pods may still be terminating.
    let new = pods.lines().count() - old.len();
    ensure!(new == lab.nodes().len() + 2, "{new} pods run an image with the new tag:\n{pods}");
    Ok(())
}

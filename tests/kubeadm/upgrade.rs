//! Upgrade to another image with the same code: a second tag on every node, because there is no
//! registry.

use crate::web::ROLLOUT_MAX;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_lab::setup::images;
use ferrolb_proto::api::NAMESPACE;

/// Tag of the other image.
pub(crate) const TAG: &str = "next";
/// Registry that containerd assumes for an image name without one.
const REGISTRY: &str = "docker.io";

/// Tags the images of both components on every node.
pub(crate) fn tag(lab: &Lab) -> Result<()> {
    let [controller, speaker, _] = images::names();
    for node in lab.nodes() {
        for image in [&controller, &speaker] {
            let [from, to] = [image, &retagged(image)?].map(|image| format!("{REGISTRY}/{image}"));
            lab.exec(&node, &["ctr", "--namespace", "k8s.io", "images", "tag", &from, &to])?;
        }
    }
    Ok(())
}

/// Sets the other image in both workloads.
pub(crate) fn by_kubectl(lab: &Lab) -> Result<()> {
    let [controller, speaker, _] = images::names();
    for (workload, container, image) in [
        ("deployment/controller", "controller", controller),
        ("daemonset/speaker", "speaker", speaker),
    ] {
        let image = format!("{container}={}", retagged(&image)?);
        lab.kubectl(&["-n", NAMESPACE, "set", "image", workload, &image])?;
    }
    Ok(())
}

fn retagged(image: &str) -> Result<String> {
    let (name, _) = image.rsplit_once(':').with_context(|| format!("{image} has no tag"))?;
    Ok(format!("{name}:{TAG}"))
}

/// Waits until every pod is ready and the old pods are gone.
pub(crate) fn rolled_out(lab: &Lab) -> Result<()> {
    ["deployment/controller", "daemonset/speaker"].iter().try_for_each(|workload| {
        lab.kubectl(&["-n", NAMESPACE, "rollout", "status", workload, ROLLOUT_MAX]).map(drop)
    })
}

/// Returns the name, the image and the restart count of each pod.
pub(crate) fn pods(lab: &Lab) -> Result<String> {
    let columns = "custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image,STARTED:.status.containerStatuses[*].restartCount";
    lab.kubectl(&["-n", NAMESPACE, "get", "pods", "--no-headers", "-o", columns])
}

/// Checks that every pod runs the other image.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    let pods = pods(lab)?;
    let old: Vec<&str> = pods.lines().filter(|pod| !pod.contains(&format!(":{TAG}"))).collect();
    // Old pods may still be terminating.
    let new = pods.lines().count() - old.len();
    ensure!(new == lab.nodes().len() + 2, "{new} pods run the other image:\n{pods}");
    Ok(())
}

//! Another image of the same code, as an upgrade brings it: a second tag on every node, since no registry is asked.

use crate::web::ROLLOUT_MAX;
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::Lab;
use ferrolb_tests::setup::images;

/// What the other image is tagged with.
pub(crate) const TAG: &str = "next";
/// Where images without a registry in their name belong, as containerd keeps them.
const REGISTRY: &str = "docker.io";

/// Tags the images of both programs on every node.
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

/// Both workloads are told to run the other image.
pub(crate) fn by_kubectl(lab: &Lab) -> Result<()> {
    let [controller, speaker, _] = images::names();
    for (workload, container, image) in
        [("deployment/controller", "controller", controller), ("daemonset/speaker", "speaker", speaker)]
    {
        let image = format!("{container}={}", retagged(&image)?);
        lab.kubectl(&["-n", NAMESPACE, "set", "image", workload, &image])?;
    }
    Ok(())
}

fn retagged(image: &str) -> Result<String> {
    let (name, _) = image.rsplit_once(':').with_context(|| format!("{image} has no tag"))?;
    Ok(format!("{name}:{TAG}"))
}

/// Waits until every pod is ready, and what was before is gone.
pub(crate) fn rolled_out(lab: &Lab) -> Result<()> {
    ["deployment/controller", "daemonset/speaker"]
        .iter()
        .try_for_each(|workload| lab.kubectl(&["-n", NAMESPACE, "rollout", "status", workload, ROLLOUT_MAX]).map(drop))
}

/// The name of each pod, its image, and how often it was started anew.
pub(crate) fn pods(lab: &Lab) -> Result<String> {
    let columns = "custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image,STARTED:.status.containerStatuses[*].restartCount";
    lab.kubectl(&["-n", NAMESPACE, "get", "pods", "--no-headers", "-o", columns])
}

/// Every pod runs the other image.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    let pods = pods(lab)?;
    let old: Vec<&str> = pods.lines().filter(|pod| !pod.contains(&format!(":{TAG}"))).collect();
    // Those that were before may still be ending.
    let new = pods.lines().count() - old.len();
    ensure!(new == lab.nodes().len() + 2, "{new} pods run the other image:\n{pods}");
    Ok(())
}

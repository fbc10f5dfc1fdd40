//! Upgrade of the plugin while addresses are announced: a rolling update of its DaemonSet to other
//! names of the same images.

use crate::client::{LOST_MAX, Limits, run_within};
use crate::restart::named;
use crate::workload::Servers;
use anyhow::Result;
use ferrolb_lab::Lab;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;

/// Limits for each Service: three times the longest measured gap, 95 ms with Flannel. No connection
/// was lost.
const LIMITS: Limits = Limits { lost: LOST_MAX, gap_ms: 285.0 };
const ROLLOUT_MAX: &str = "--timeout=240s";
/// Lines such as `kube-router=docker.io/cloudnativelabs/kube-router:v2.1.0`.
const IMAGES: &str = r#"jsonpath={range .spec.template.spec['initContainers','containers'][*]}{.name}={.image}{"\n"}{end}"#;

/// Gives each image another tag on each machine, and updates the DaemonSet.
pub(crate) fn check(lab: &Lab, plugin: NetworkPlugin, servers: &Servers) -> Result<()> {
    let (namespace, name) = plugin.daemon_set();
    let daemon_set = format!("daemonset/{name}");
    let images = lab.kubectl(&["-n", namespace, "get", &daemon_set, "-o", IMAGES])?;
    let mut changes = Vec::new();
    for (container, image) in images.lines().filter_map(|line| line.split_once('=')) {
        let next = format!("{image}-next");
        for node in lab.nodes() {
            lab.exec(&node, &["ctr", "-n", "k8s.io", "images", "tag", "--force", image, &next])?;
        }
        changes.push(format!("{container}={next}"));
    }
    let changes: Vec<_> = changes.iter().map(String::as_str).collect();
    run_within(&LIMITS, lab, &format!("upgrade of {plugin}"), &named(servers), || {
        lab.kubectl(&[&["-n", namespace, "set", "image", &daemon_set], &changes[..]].concat())?;
        let status = ["-n", namespace, "rollout", "status", &daemon_set, ROLLOUT_MAX];
        lab.kubectl(&status).map(drop)
    })
}

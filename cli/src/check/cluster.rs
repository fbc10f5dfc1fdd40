//! Rules about Kubernetes, its nodes and kube-proxy. Pure.

use super::facts::{ClusterFacts, Objects};
use super::finding::{Code, Finding, Object, first_names};

/// The oldest supported version of Kubernetes.
const KUBERNETES_MIN: [u32; 2] = [1, 31];
/// The mode of kube-proxy in which node kernels own the addresses of Services.
const IPVS: &str = "ipvs";
/// The label that excludes a node.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Returns the findings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let old = version_finding(facts);
    old.into_iter()
        .chain(strict_arp(facts))
        .chain(excluded(facts))
        .chain(unhealthy(facts))
        .collect()
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let [major, minor] = facts.kubernetes.unwrap_or_default();
    let version = if facts.kubernetes.is_some() {
        format!("Kubernetes {major}.{minor}")
    } else {
        "version of Kubernetes not known".to_owned()
    };
    let mode = facts.kube_proxy.as_ref().map(|config| &*config.mode).unwrap_or_default();
    let mode = if mode.is_empty() { String::new() } else { format!(", kube-proxy {mode}") };
    let nodes = facts.objects.as_ref().map(|objects| objects.nodes.len());
    let nodes = nodes.map_or_else(String::new, |count| format!(", nodes: {count}"));
    format!("{version}{mode}{nodes}")
}

fn version_finding(facts: &ClusterFacts) -> Option<Finding> {
    let [major, minor] = facts.kubernetes.filter(|version| *version < KUBERNETES_MIN)?;
    let [min_major, min_minor] = KUBERNETES_MIN;
    let text = format!(
        "Kubernetes {major}.{minor} is too old: FerroLB needs {min_major}.{min_minor} or newer"
    );
    Some(Finding::new(Code::KubernetesOld, Vec::new(), text))
}

fn strict_arp(facts: &ClusterFacts) -> Option<Finding> {
    let config = facts.kube_proxy.as_ref()?;
    let text = "kube-proxy is in IPVS mode without strictARP, so the kernels of all nodes reply for \
                the addresses of Services: set ipvs.strictARP to true in ConfigMap \
                kube-system/kube-proxy, and restart kube-proxy";
    let object = Object::namespaced("ConfigMap", "kube-system", "kube-proxy");
    (config.mode == IPVS && !config.strict_arp)
        .then(|| Finding::new(Code::StrictArpOff, vec![object], text.to_owned()))
}

fn excluded(facts: &ClusterFacts) -> Option<Finding> {
    let nodes = &facts.objects.as_ref()?.nodes;
    let excluded: Vec<&str> = nodes.iter().filter(|it| it.excluded).map(|it| &*it.name).collect();
    if excluded.is_empty() {
        return None;
    }
    let text = if excluded.len() == nodes.len() {
        format!(
            "every Node has the label {EXCLUDE_LABEL}, so it is ignored: remove it from the nodes \
             that should announce"
        )
    } else {
        format!(
            "{} announces no address because of the label {EXCLUDE_LABEL}: to announce, `kubectl \
             label node {} {EXCLUDE_LABEL}-`",
            first_names(&excluded),
            excluded.first().copied().unwrap_or_default()
        )
    };
    let objects = excluded.iter().map(|name| Object::cluster("Node", name)).collect();
    Some(Finding::new(Code::NodeExcluded, objects, text))
}

fn unhealthy(facts: &ClusterFacts) -> impl Iterator<Item = Finding> {
    let speakers = facts.objects.iter().flat_map(Objects::live_speakers);
    speakers.filter_map(|speaker| {
        let issue = speaker.kube_proxy_issue()?;
        let text = format!("kube-proxy is unhealthy on {}: {issue}", speaker.node);
        let object = Object::cluster("Node", &speaker.node);
        Some(Finding::new(Code::KubeProxyUnhealthy, vec![object], text))
    })
}

//! Rules about Kubernetes, its nodes and kube-proxy. Pure.

use ferrolb_proto::facts::Speaker;

use super::facts::{ClusterFacts, Objects};
use super::finding::{Code, Finding, Object};
use crate::table::first_names;

/// The oldest supported version of Kubernetes.
const KUBERNETES_MIN: [u32; 2] = [1, 31];
/// The mode of kube-proxy in which node kernels own the addresses of Services.
const IPVS: &str = "ipvs";
/// The label that excludes a node.
pub(crate) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Returns the findings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let old = version_finding(facts);
    old.into_iter()
        .chain(strict_arp(facts))
        .chain(excluded(facts))
        .chain(unhealthy(facts))
        .chain(gone(facts))
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
    let mode = if facts.kube_proxy_replaced { "replaced" } else { mode };
    let mode = if mode.is_empty() { String::new() } else { format!(", kube-proxy {mode}") };
    let plugins: String = facts.plugins.iter().map(|name| format!(", {name}")).collect();
    let nodes = facts.objects.as_ref().map(|objects| objects.nodes.len());
    let nodes = nodes.map_or_else(String::new, |count| format!(", nodes: {count}"));
    let excluded = facts.objects.as_ref().map(Objects::excluded_nodes).unwrap_or_default();
    let excluded = match &*excluded {
        [] => String::new(),
        names => format!(" (by their label, not announcing: {})", first_names(names)),
    };
    format!("{version}{mode}{plugins}{nodes}{excluded}")
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

/// Returns the finding about the exclude label if it leaves only one of several nodes.
fn excluded(facts: &ClusterFacts) -> Option<Finding> {
    let objects = facts.objects.as_ref()?;
    let excluded = objects.excluded_nodes();
    let first = excluded.first()?;
    let mut others = objects.nodes.iter().filter(|node| !node.excluded);
    let (only, None) = (others.next()?, others.next()) else { return None };
    let text = format!(
        "only {} may announce, so no other node takes over: the label \
         {EXCLUDE_LABEL} excludes {}. To announce, `kubectl label node {first} {EXCLUDE_LABEL}-`",
        only.name,
        first_names(&excluded)
    );
    let objects = excluded.iter().map(|name| Object::cluster("Node", name)).collect();
    Some(Finding::new(Code::NodeExcluded, objects, text))
}

fn unhealthy(facts: &ClusterFacts) -> impl Iterator<Item = Finding> {
    let speakers = facts.objects.iter().flat_map(Objects::live_speakers);
    speakers.filter_map(|speaker| {
        let issue = speaker.kube_proxy_issue()?;
        let node = &speaker.node;
        let text = format!(
            "kube-proxy is unhealthy on {node}: {issue}. Unless it is a part of k3s, its pod is in \
             `kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node}`"
        );
        let object = Object::cluster("Node", &speaker.node);
        Some(Finding::new(Code::KubeProxyUnhealthy, vec![object], text))
    })
}

/// Returns the finding about a kube-proxy that is healthy on no node any more. The speakers know of
/// no other reason than a failure; the objects of the cluster may show that it was replaced.
fn gone(facts: &ClusterFacts) -> Option<Finding> {
    let objects = facts.objects.as_ref().filter(|_| !facts.kube_proxy_replaced)?;
    let gone = |speaker: &Speaker| {
        let since = speaker.kube_proxy_gone_since()?;
        Some((since.to_owned(), speaker.node.to_string()))
    };
    let (times, nodes): (Vec<_>, Vec<_>) = objects.live_speakers().filter_map(gone).unzip();
    let text = format!(
        "no kube-proxy has been healthy on {} since {}. If a network plugin has replaced it, \
         `kubectl -n {} rollout restart daemonset speaker` ends this warning, else see \
         `kubectl -n kube-system get pods -o wide`",
        first_names(&nodes),
        times.iter().max()?,
        objects.installation.namespace
    );
    let objects = nodes.iter().map(|name| Object::cluster("Node", name)).collect();
    Some(Finding::new(Code::KubeProxyGone, objects, text))
}

//! Memory of FerroLB's containers, as their kubelets count it: the numbers of `kubectl top`, and
//! those that a memory limit applies to.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::targets::{CONTROLLER_1, MeasureSpec, SPEAKER_1};
use ferrolb_lab::scenario::print_measured;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::Value;
use std::time::Duration;

/// Maximum time until a kubelet has numbers. It reads those of a new container after about 10 s.
const COUNTED_MAX: Duration = Duration::from_secs(60);
const CONTAINERS: [(&str, &MeasureSpec); 2] =
    [("speaker", &SPEAKER_1.rss), ("controller", &CONTROLLER_1.rss)];

/// Memory of a container, in millions of bytes. `rss` counts anonymous pages. `working_set` adds
/// the recently used page cache and kernel memory.
#[derive(Debug, PartialEq)]
struct ContainerMemory {
    container: String,
    rss: f64,
    working_set: f64,
}

/// Compares the memory of each container with its target: unlike times, memory does not depend on
/// the load of the machine.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    let mut seen = [0; 2];
    for node in lab.nodes() {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let all = wait::until("a kubelet has counted all containers", COUNTED_MAX, || {
            container_memory(&serde_json::from_str(&lab.kubectl(&["get", "--raw", &path])?)?)
                .map(Some)
        })?;
        for ContainerMemory { container, rss, working_set } in all {
            print_measured(&format!(
                "{container} on {node}, by its kubelet: rss {rss:.1} MB, working set {working_set:.1} MB"
            ));
            let known = CONTAINERS.iter().position(|(name, _)| *name == container);
            let known =
                known.with_context(|| format!("{container} is not a container of FerroLB"))?;
            seen[known] += 1;
            let limit = CONTAINERS[known].1.target.context("the number has a target")?;
            ensure!(
                rss <= limit && working_set <= limit,
                "{container} on {node} uses more than {limit} MB"
            );
        }
    }
    ensure!(seen == [3, 2], "{seen:?} speakers and controllers were counted");
    Ok(())
}

/// Returns FerroLB's containers in a kubelet's summary (stats/v1alpha1).
fn container_memory(summary: &Value) -> Result<Vec<ContainerMemory>> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for pod in items(&summary["pods"]).iter().filter(|pod| pod["podRef"]["namespace"] == NAMESPACE)
    {
        for container in items(&pod["containers"]) {
            let name = container["name"].as_str().context("a container has a name")?;
            let megabytes = |field: &str| {
                let bytes = container["memory"][field].as_f64().filter(|bytes| *bytes > 0.0);
                bytes.map(|bytes| bytes / 1e6).with_context(|| format!("{name} has no {field} yet"))
            };
            let (rss, working_set) = (megabytes("rssBytes")?, megabytes("workingSetBytes")?);
            all.push(ContainerMemory { container: name.to_owned(), rss, working_set });
        }
    }
    ensure!(!all.is_empty(), "the kubelet has no numbers of FerroLB's containers yet");
    Ok(all)
}

#[test]
fn an_incomplete_summary_is_an_error() {
    let summary = |memory: Value| {
        let container = serde_json::json!({"name": "speaker", "memory": memory});
        let pod = |namespace| serde_json::json!({"podRef": {"namespace": namespace}, "containers": [container]});
        container_memory(&serde_json::json!({"pods": [pod("kube-system"), pod(NAMESPACE)]}))
    };
    let whole =
        summary(serde_json::json!({"rssBytes": 5_000_000, "workingSetBytes": 7_500_000})).unwrap();
    assert_eq!(
        whole,
        [ContainerMemory { container: "speaker".to_owned(), rss: 5.0, working_set: 7.5 }]
    );
    assert!(summary(serde_json::json!({"rssBytes": 0, "workingSetBytes": 7_500_000})).is_err());
    assert!(summary(serde_json::json!({"workingSetBytes": 7_500_000})).is_err());
    assert!(container_memory(&serde_json::json!({"pods": []})).is_err());
}

//! Memory of FerroLB's containers, as the kubelets measure it: the figures of `kubectl top`, and
//! the figures to which a memory limit applies.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::bench::targets::{CONTROLLER_1, MeasureSpec, SPEAKER_1};
use ferrolb_lab::scenario::print_measured;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::Value;
use std::time::Duration;

/// Maximum time until a kubelet reports the memory of all containers: a kubelet measures a new
/// container after about 10 s.
const MEASURED_MAX: Duration = Duration::from_secs(60);
/// Name and memory target of each container of FerroLB.
const CONTAINERS: [(&str, &MeasureSpec); 2] =
    [("speaker", &SPEAKER_1.rss), ("controller", &CONTROLLER_1.rss)];

/// Memory of a container, in MB. `rss` is the anonymous memory. `working_set` adds the recently
/// used page cache and kernel memory.
#[derive(Debug, PartialEq)]
struct ContainerMemory {
    container: String,
    rss: f64,
    working_set: f64,
}

/// Checks that the memory of each container is within its target: unlike times, memory does not
/// depend on the load of the machine.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    let mut counts = [0; 2];
    for node in lab.nodes() {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let containers =
            wait::until("the kubelet has measured all containers", MEASURED_MAX, || {
                container_memory(&serde_json::from_str(&lab.kubectl(&["get", "--raw", &path])?)?)
                    .map(Some)
            })?;
        for ContainerMemory { container, rss, working_set } in containers {
            print_measured(&format!(
                "{container} on {node}, measured by its kubelet: rss {rss:.1} MB, working set {working_set:.1} MB"
            ));
            let index = CONTAINERS.iter().position(|(name, _)| *name == container);
            let index =
                index.with_context(|| format!("{container} is not a container of FerroLB"))?;
            counts[index] += 1;
            let limit =
                CONTAINERS[index].1.target.context("the memory of the container has no target")?;
            ensure!(
                rss <= limit && working_set <= limit,
                "{container} on {node} uses more than {limit} MB"
            );
        }
    }
    ensure!(counts == [3, 2], "the kubelets report {counts:?} speakers and controllers");
    Ok(())
}

/// Returns the memory of FerroLB's containers from a kubelet's summary (stats/v1alpha1).
fn container_memory(summary: &Value) -> Result<Vec<ContainerMemory>> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut containers = Vec::new();
    for pod in items(&summary["pods"]).iter().filter(|pod| pod["podRef"]["namespace"] == NAMESPACE)
    {
        for container in items(&pod["containers"]) {
            let name = container["name"].as_str().context("the container has no name")?;
            let megabytes = |field: &str| {
                let bytes = container["memory"][field].as_f64().filter(|bytes| *bytes > 0.0);
                bytes.map(|bytes| bytes / 1e6).with_context(|| format!("{name} has no {field} yet"))
            };
            let (rss, working_set) = (megabytes("rssBytes")?, megabytes("workingSetBytes")?);
            containers.push(ContainerMemory { container: name.to_owned(), rss, working_set });
        }
    }
    ensure!(!containers.is_empty(), "the kubelet has not measured FerroLB's containers yet");
    Ok(containers)
}

#[test]
fn an_incomplete_summary_is_an_error() {
    let summary = |memory: Value| {
        let container = serde_json::json!({"name": "speaker", "memory": memory});
        let pod = |namespace| serde_json::json!({"podRef": {"namespace": namespace}, "containers": [container]});
        container_memory(&serde_json::json!({"pods": [pod("kube-system"), pod(NAMESPACE)]}))
    };
    let complete =
        summary(serde_json::json!({"rssBytes": 5_000_000, "workingSetBytes": 7_500_000})).unwrap();
    assert_eq!(
        complete,
        [ContainerMemory { container: "speaker".to_owned(), rss: 5.0, working_set: 7.5 }]
    );
    assert!(summary(serde_json::json!({"rssBytes": 0, "workingSetBytes": 7_500_000})).is_err());
    assert!(summary(serde_json::json!({"workingSetBytes": 7_500_000})).is_err());
    assert!(container_memory(&serde_json::json!({"pods": []})).is_err());
}

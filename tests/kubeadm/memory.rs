//! What FerroLB's containers hold in memory, as their kubelets count it: what a user sees in `kubectl top`, and what a limit is held against.

use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::bench::budgets::{CONTROLLER_1, Known, SPEAKER_1};
use ferrolb_tests::stage::measured;
use ferrolb_tests::{Lab, wait};
use serde_json::Value;
use std::time::Duration;

/// A kubelet looks at a new container after some 10 s for the first time.
const COUNTED_MAX: Duration = Duration::from_secs(60);
const CONTAINERS: [(&str, &Known); 2] = [("speaker", &SPEAKER_1.rss), ("controller", &CONTROLLER_1.rss)];

/// What a container holds, in millions of bytes: anonymous pages; and with the page cache that was touched lately, and the kernel's own.
#[derive(Debug, PartialEq)]
struct Held {
    container: String,
    rss: f64,
    working_set: f64,
}

/// Asks every kubelet, and holds each container to its budget: memory does not depend on how busy a machine is.
pub(crate) fn check(lab: &Lab) -> Result<()> {
    let mut seen = [0; 2];
    for node in lab.nodes() {
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let all = wait::until("a kubelet has counted all containers", COUNTED_MAX, || {
            held(&serde_json::from_str(&lab.kubectl(&["get", "--raw", &path])?)?).map(Some)
        })?;
        for Held { container, rss, working_set } in all {
            measured(&format!(
                "{container} on {node}, by its kubelet: rss {rss:.1} MB, working set {working_set:.1} MB"
            ));
            let known = CONTAINERS.iter().position(|(name, _)| *name == container);
            let known = known.with_context(|| format!("{container} is no container of FerroLB's"))?;
            seen[known] += 1;
            let limit = CONTAINERS[known].1.budget.context("it has a budget")?;
            ensure!(rss <= limit && working_set <= limit, "{container} on {node} holds more than {limit} MB");
        }
    }
    ensure!(seen == [3, 2], "{seen:?} speakers and controllers were counted");
    Ok(())
}

/// FerroLB's containers in a kubelet's summary (stats/v1alpha1).
fn held(summary: &Value) -> Result<Vec<Held>> {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for pod in items(&summary["pods"]).iter().filter(|pod| pod["podRef"]["namespace"] == NAMESPACE) {
        for container in items(&pod["containers"]) {
            let name = container["name"].as_str().context("a container has a name")?;
            let megabytes = |field: &str| {
                let bytes = container["memory"][field].as_f64().filter(|bytes| *bytes > 0.0);
                bytes.map(|bytes| bytes / 1e6).with_context(|| format!("{name} has no {field} yet"))
            };
            let (rss, working_set) = (megabytes("rssBytes")?, megabytes("workingSetBytes")?);
            all.push(Held { container: name.to_owned(), rss, working_set });
        }
    }
    ensure!(!all.is_empty(), "no container of FerroLB's is counted yet");
    Ok(all)
}

#[test]
fn a_summary_is_read_once_it_is_whole() {
    let summary = |memory: Value| {
        let container = serde_json::json!({"name": "speaker", "memory": memory});
        let pod = |namespace| serde_json::json!({"podRef": {"namespace": namespace}, "containers": [container]});
        held(&serde_json::json!({"pods": [pod("kube-system"), pod(NAMESPACE)]}))
    };
    let whole = summary(serde_json::json!({"rssBytes": 5_000_000, "workingSetBytes": 7_500_000})).unwrap();
    assert_eq!(whole, [Held { container: "speaker".to_owned(), rss: 5.0, working_set: 7.5 }]);
    assert!(summary(serde_json::json!({"rssBytes": 0, "workingSetBytes": 7_500_000})).is_err());
    assert!(summary(serde_json::json!({"workingSetBytes": 7_500_000})).is_err());
    assert!(held(&serde_json::json!({"pods": []})).is_err());
}

//! EndpointSlices of a new or changed Service, which the EndpointSlice controller of Kubernetes
//! creates only after the Service exists. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::objects::key;

/// Phases of a pod that has ended (`Pod.status.phase`).
const ENDED: [&str; 2] = ["Succeeded", "Failed"];

/// Returns the EndpointSlices of a Service, one for each address family, from the pods that its
/// selector selects.
#[must_use]
pub fn slices(service: &Value, pods: &[Pod]) -> Vec<Value> {
    let key = key(service);
    let publishes_all = service["spec"]["publishNotReadyAddresses"] == true;
    let families = service["spec"]["ipFamilies"].as_array().map_or(&[][..], Vec::as_slice);
    let slice = |family: &Value| {
        let is_v6 = family == "IPv6";
        let endpoints: Vec<_> =
            pods.iter().filter_map(|pod| endpoint(pod, is_v6, publishes_all)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": key.namespace(),
                "name": format!("{}-{}", key.name(), if is_v6 { "ipv6" } else { "ipv4" }),
                "labels": {"kubernetes.io/service-name": key.name()},
            },
            "addressType": family,
            "endpoints": endpoints,
        })
    };
    families.iter().map(slice).collect()
}

/// Returns the endpoint of a pod; `None` if the pod has none in this family.
fn endpoint(pod: &Pod, is_v6: bool, publishes_all: bool) -> Option<Value> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref().is_some_and(|phase| ENDED.contains(&phase)) {
        return None;
    }
    let addresses = status.pod_ips.iter().flatten().map(|it| it.ip.as_str());
    let address = addresses.into_iter().find(|ip| ip.contains(':') == is_v6)?;
    let is_ready = |condition: &&k8s_openapi::api::core::v1::PodCondition| {
        condition.type_ == "Ready" && condition.status == "True"
    };
    let serving = status.conditions.iter().flatten().any(|it| is_ready(&it));
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Some(json!({
        "addresses": [address],
        "nodeName": pod.spec.as_ref()?.node_name,
        "conditions": {
            "ready": publishes_all || serving && !terminating,
            "serving": serving,
            "terminating": terminating,
        },
    }))
}

/// Returns the label selector of a Service as text, sorted by key; `None` if it has none.
#[must_use]
pub fn selector(service: &Value) -> Option<String> {
    let labels = service["spec"]["selector"].as_object()?;
    let labels: BTreeMap<_, _> =
        labels.iter().filter_map(|(key, value)| Some((key, value.as_str()?))).collect();
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some(pairs.join(",")).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ip: &str, ready: &str, more: &Value) -> Pod {
        let mut object = json!({"metadata": {"name": name}, "spec": {"nodeName": "node1", "containers": []},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": ready}]}});
        for (key, value) in more.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        serde_json::from_value(object).expect("a Pod")
    }

    #[test]
    fn each_running_pod_is_an_endpoint_of_its_families() {
        let ended = json!({"status": {"phase": "Failed", "podIPs": [{"ip": "10.0.0.4"}]}});
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let pods = [
            pod("ready", "10.0.0.1", "True", &json!({})),
            pod("starting", "10.0.0.2", "False", &json!({})),
            pod("leaving", "10.0.0.3", "True", &leaving),
            pod("ended", "10.0.0.4", "True", &ended),
        ];
        let mut service = json!({"metadata": {"namespace": "shop", "name": "db"},
            "spec": {"ipFamilies": ["IPv4", "IPv6"], "selector": {"app": "db", "tier": "data"}}});
        let states = |service: &Value| {
            let slices = slices(service, &pods);
            let state = |endpoint: &Value| {
                let is = |name: &str| endpoint["conditions"][name] == true;
                (is("ready"), is("serving"), is("terminating"))
            };
            let of = |slice: &Value| -> Vec<_> {
                slice["endpoints"].as_array().into_iter().flatten().map(state).collect()
            };
            slices.iter().map(of).collect::<Vec<_>>()
        };
        let expected = vec![(true, true, false), (false, false, false), (false, true, true)];
        assert_eq!(states(&service), [expected.clone(), expected]);
        service["spec"]["publishNotReadyAddresses"] = json!(true);
        assert!(states(&service)[0].iter().all(|(ready, ..)| *ready));
        assert_eq!(selector(&service).as_deref(), Some("app=db,tier=data"));
        let longer = json!({"spec": {"selector": {"app.io/name": "b", "app": "a"}}});
        assert_eq!(selector(&longer).as_deref(), Some("app=a,app.io/name=b"), "sorted by key");
        assert_eq!(selector(&json!({"spec": {}})), None);
    }
}

//! EndpointSlices of every kind: written by hand, several for one Service, without node names, with
//! host names for addresses. Also ports that differ between pods, and unready pods that are
//! published anyway.

use crate::node_failure::PROBE_STEP;
use crate::pools::STATE_MAX;
use crate::scenario::step;
use crate::segment;
use crate::services::{self, http, service, wait_announced};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Length of one probe of the replying pods.
const PROBE_LENGTH: Duration = Duration::from_millis(500);
/// Label of pods whose named port `http` differs.
const NAMED: [(&str, &str); 1] = [("app", "named")];

/// Runs the steps. Nodes 1 to 3 are up, with the pods web1 to web3.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("endpoints by host name are none", || by_hand(lab))?;
    step("a named target port may be another one in each pod", || named_ports(lab))?;
    step("with publishNotReadyAddresses a pod that is not ready is announced and served", || {
        unready(lab)
    })
}

/// Writes the slices of a Service without a selector.
fn by_hand(lab: &Lab) -> Result<()> {
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let mut object = service("hand", json!({"ports": ports}));
    object["spec"].as_object_mut().map(|spec| spec.remove("selector"));
    lab.apply_objects(&[
        object,
        slice("hand-names", "FQDN", json!([{"addresses": ["web.example.org"]}])),
    ])?;
    let address = services::address(lab, "hand")?;
    wait_announced(lab, "hand", "NoEndpoints", "no endpoint")?;
    let nowhere = |address: &str| json!([{"addresses": [address], "conditions": {}}]);
    step("one without a node is good for policy Cluster", || {
        lab.apply_objects(&[slice("hand-nowhere", "IPv4", nowhere(&pod_address(lab, "web1")?))])?;
        wait_replies_from(lab, address, &["web1"])
    })?;
    step("and for no node with policy Local, which is said", || {
        services::patch(lab, "hand", &json!({"spec": {"externalTrafficPolicy": "Local"}}))?;
        wait_announced(
            lab,
            "hand",
            "NoCandidateNode",
            "without eligible endpoint (externalTrafficPolicy Local)",
        )?;
        segment::wait_unannounced(lab, address)
    })?;
    step("another slice that names a node makes it the one that announces", || {
        let there = json!([{"addresses": [pod_address(lab, "web2")?], "nodeName": "node2", "conditions": {"ready": true}}]);
        lab.apply_objects(&[slice("hand-node2", "IPv4", there)])?;
        let owner = segment::wait_owner(lab, address)?;
        ensure!(owner == "node2", "{owner} announces, but the endpoint is on node2");
        wait_replies_from(lab, address, &["web2"])
    })?;
    step("with policy Cluster again both slices count", || {
        services::patch(lab, "hand", &json!({"spec": {"externalTrafficPolicy": "Cluster"}}))?;
        wait_replies_from(lab, address, &["web1", "web2"])
    })
}

fn named_ports(lab: &Lab) -> Result<()> {
    lab.pod_on_port("named1", "node1", &NAMED, 8080)?;
    lab.pod_on_port("named2", "node2", &NAMED, 9090)?;
    let spec = json!({"selector": {"app": "named"}, "ports": [{"port": 80, "targetPort": "http"}]});
    lab.apply_objects(&[service("named", spec)])?;
    wait_replies_from(lab, services::address(lab, "named")?, &["named1", "named2"])
}

fn unready(lab: &Lab) -> Result<()> {
    lab.pod("early", "node3", &[("app", "early")])?;
    lab.set_ready("early", false)?;
    let spec = json!({"selector": {"app": "early"}, "externalTrafficPolicy": "Local"});
    lab.apply_objects(&[service("early", spec)])?;
    let address = services::address(lab, "early")?;
    wait_announced(lab, "early", "NoEndpoints", "no endpoint")?;
    services::patch(lab, "early", &json!({"spec": {"publishNotReadyAddresses": true}}))?;
    wait_announced(lab, "early", "Announced", "node3")?;
    wait_replies_from(lab, address, &["early"])
}

/// Returns a slice of the Service `hand`.
fn slice(name: &str, kind: &str, endpoints: Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "hand"}},
        "addressType": kind, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

/// Returns the IPv4 address of a pod.
fn pod_address(lab: &Lab, pod: &str) -> Result<String> {
    lab.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
}

/// Waits until exactly these pods reply at the address.
fn wait_replies_from(lab: &Lab, address: Ipv4Addr, pods: &[&str]) -> Result<()> {
    wait::until(&format!("{pods:?} answer at {address}"), STATE_MAX, || {
        let report = lab.start_probe(http(address), PROBE_LENGTH, PROBE_STEP).finish()?;
        let all = report.pods.keys().map(String::as_str).eq(pods.iter().copied());
        ensure!(
            all && report.lost == 0,
            "{} of {} lost, replies from {:?}",
            report.lost,
            report.sent,
            report.pods
        );
        Ok(Some(()))
    })
}

//! EndpointSlices of all forms: of a Service without a selector, several of one Service, without
//! node names, and of the address type FQDN. The test also covers named ports whose numbers differ
//! between pods, and `publishNotReadyAddresses`.

use crate::node_failure::PROBE_INTERVAL;
use crate::pools::STATE_MAX;
use crate::scenario::step;
use crate::segment;
use crate::services::{self, http, service, wait_announced};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Time for which the client connects to find the pods that reply.
const PROBE_LENGTH: Duration = Duration::from_millis(500);
/// Label of pods whose port with the name `http` has different numbers.
const NAMED_PORT_LABEL: [(&str, &str); 1] = [("app", "named")];

/// Runs the steps. They require that nodes 1 to 3 run, with the pods web1 to web3.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("endpoints of the address type FQDN are not eligible", || check_custom_slices(lab))?;
    step("a named target port has a different number in each pod", || check_named_ports(lab))?;
    step(
        "with publishNotReadyAddresses, a Service with an unready pod is announced and served",
        || check_not_ready_addresses(lab),
    )
}

/// Creates the EndpointSlices of a Service without a selector, and checks which endpoints are
/// eligible.
fn check_custom_slices(lab: &Lab) -> Result<()> {
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let mut object = service("hand", json!({"ports": ports}));
    object["spec"].as_object_mut().map(|spec| spec.remove("selector"));
    lab.apply_objects(&[
        object,
        slice("hand-names", "FQDN", json!([{"addresses": ["web.example.org"]}])),
    ])?;
    let address = services::address(lab, "hand")?;
    wait_announced(lab, "hand", "NoEndpoints", "no endpoint")?;
    let without_node = |address: &str| json!([{"addresses": [address], "conditions": {}}]);
    step("an endpoint without a node name is eligible with policy Cluster", || {
        lab.apply_objects(&[slice(
            "hand-nowhere",
            "IPv4",
            without_node(&pod_address(lab, "web1")?),
        )])?;
        wait_replies_from(lab, address, &["web1"])
    })?;
    step("an endpoint without a node name is eligible on no node with policy Local", || {
        services::patch(lab, "hand", &json!({"spec": {"externalTrafficPolicy": "Local"}}))?;
        wait_announced(
            lab,
            "hand",
            "NoCandidateNode",
            "without eligible endpoint (externalTrafficPolicy Local)",
        )?;
        segment::wait_unannounced(lab, address)
    })?;
    step("with a second EndpointSlice that names a node, that node announces the address", || {
        let endpoints = json!([{"addresses": [pod_address(lab, "web2")?], "nodeName": "node2", "conditions": {"ready": true}}]);
        lab.apply_objects(&[slice("hand-node2", "IPv4", endpoints)])?;
        let owner = segment::wait_owner(lab, address)?;
        ensure!(owner == "node2", "{owner} announces, but the endpoint is on node2");
        wait_replies_from(lab, address, &["web2"])
    })?;
    step("with policy Cluster, the endpoints of both EndpointSlices are eligible", || {
        services::patch(lab, "hand", &json!({"spec": {"externalTrafficPolicy": "Cluster"}}))?;
        wait_replies_from(lab, address, &["web1", "web2"])
    })
}

fn check_named_ports(lab: &Lab) -> Result<()> {
    lab.pod_on_port("named1", "node1", &NAMED_PORT_LABEL, 8080)?;
    lab.pod_on_port("named2", "node2", &NAMED_PORT_LABEL, 9090)?;
    let spec = json!({"selector": {"app": "named"}, "ports": [{"port": 80, "targetPort": "http"}]});
    lab.apply_objects(&[service("named", spec)])?;
    wait_replies_from(lab, services::address(lab, "named")?, &["named1", "named2"])
}

fn check_not_ready_addresses(lab: &Lab) -> Result<()> {
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

/// Returns an EndpointSlice of the Service `hand`.
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
    wait::until(&format!("{pods:?} reply at {address}"), STATE_MAX, || {
        let report = lab.start_probe(http(address), PROBE_LENGTH, PROBE_INTERVAL).finish()?;
        let all_reply = report.pods.keys().map(String::as_str).eq(pods.iter().copied());
        ensure!(
            all_reply && report.lost == 0,
            "{} of {} connections lost, replies from {:?}",
            report.lost,
            report.sent,
            report.pods
        );
        Ok(Some(()))
    })
}

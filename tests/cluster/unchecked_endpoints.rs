//! Endpoints outside of the ranges that health checks may contact are reported. They are checked
//! while the kernel of their node has routes to its own pods, as Calico and Cilium make them.

use crate::health_checks::{HEALTH_CHECK_ANNOTATION, pod, set_server};
use crate::pools;
use crate::scenario::step;
use crate::services::{self, service, wait_announced};
use crate::speakers::wait_for;
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_lab::topology::POD_PORT;
use ferrolb_proto::api::UncheckedReason::{self, OutsideRanges};
use serde_json::{Value, json};

/// Name of the Service and of its pool.
const NAME: &str = "unchecked";
const ADDRESSES: [&str; 2] = ["172.30.0.212", "fd30::212"];
const NODE: &str = "node1";
/// Addresses of the endpoints, which no Node has in its `spec.podCIDRs`.
const ENDPOINTS: [&str; 2] = ["10.99.0.7", "fd99::7"];

/// Routes to the endpoints into the pod, as of Calico. `IN_POD` has the commands for the pod.
const CALICO: &str = "ip link add cali7 type veth peer name eth7 netns NAMESPACE
ip link set cali7 up
ip route add 10.99.0.7/32 dev cali7
ip route add fd99::7/128 dev cali7";
const IN_POD: &str = "ip link set eth7 up
ip address add 10.99.0.7/32 dev eth7
ip route add NODE/32 dev eth7";
/// Routes to the range of the node's pods, as of Cilium. Nothing delivers the packets.
const CILIUM: &str = "ip link add cilium_host type veth peer name cilium_net
ip link set cilium_net up
ip link set cilium_host up
ip address add 10.99.0.13/32 dev cilium_host
ip route add 10.99.0.0/24 via 10.99.0.13 dev cilium_host src 10.99.0.13
ip address add fd99::13/128 dev cilium_host nodad
ip route add fd99::/120 dev cilium_host src fd99::13";

/// Runs the steps. They require that a pod with the name [`pod`] serves on the node.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("the condition, `why` and `check` report endpoints that are not checked", || {
        let slices = [slice("IPv4", ENDPOINTS[0]), slice("IPv6", ENDPOINTS[1])];
        lab.apply_objects(&[pools::pool(NAME, &ADDRESSES), without_selector()])?;
        lab.apply_objects(&slices)?;
        services::wait_addresses(lab, NAME, &ADDRESSES)?;
        wait_reported(lab)
    })?;
    step("routes into the pod permit the checks, one of which fails", || {
        let name = pod(NODE);
        run(lab, NODE, &CALICO.replace("NAMESPACE", &lab.state().name.namespace(&name)))?;
        run(lab, &name, &IN_POD.replace("NODE", &lab.address(NODE)?.to_string()))?;
        wait_unchecked(lab, &[])?;
        set_server(lab, NODE, false)?;
        let refused = format!("{}:{POD_PORT}: connection refused", ENDPOINTS[0]);
        wait_announced(lab, NAME, "Announced", &refused)?;
        set_server(lab, NODE, true)
    })?;
    step("the interface is deleted, and with it the permission", || {
        run(lab, NODE, "ip link delete cali7")?;
        wait_reported(lab)
    })?;
    step("routes to the range of the node's pods permit the checks", || {
        run(lab, NODE, CILIUM)?;
        wait_unchecked(lab, &[])?;
        run(lab, NODE, "ip link delete cilium_host")?;
        wait_unchecked(lab, &[OutsideRanges, OutsideRanges])
    })?;
    services::delete(lab, NAME)
}

fn without_selector() -> Value {
    let spec = json!({
        "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack",
        "ipFamilies": ["IPv4", "IPv6"], "ports": [{"name": "http", "port": 80, "targetPort": POD_PORT}],
    });
    let mut object = service(NAME, spec);
    object["spec"].as_object_mut().map(|spec| spec.remove("selector"));
    object["metadata"]["annotations"] =
        json!({HEALTH_CHECK_ANNOTATION: "tcp", "ferrolb.io/address-pool": NAME});
    object
}

fn slice(family: &str, address: &str) -> Value {
    let name = format!("{NAME}-{}", family.to_lowercase());
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": NAME}},
        "ports": [{"name": "http", "port": POD_PORT}],
        "endpoints": [{"addresses": [address], "nodeName": NODE, "conditions": {"ready": true}}],
    })
}

/// Runs the commands, one in each line, on a host.
fn run(lab: &Lab, host: &str, commands: &str) -> Result<()> {
    commands.lines().try_for_each(|command| {
        lab.exec(host, &command.split_whitespace().collect::<Vec<_>>()).map(drop)
    })
}

fn wait_reported(lab: &Lab) -> Result<()> {
    wait_unchecked(lab, &[OutsideRanges, OutsideRanges])?;
    let [v4, v6] = ENDPOINTS;
    let text = format!("2 of 2 endpoints on {NODE} are not checked ({v4} and {v6})");
    wait_announced(lab, NAME, "Announced", &text)?;
    let why = lab.shell(&format!("kubectl ferrolb why {NAME}"))?;
    ensure!(why.contains(&text) && why.contains("--health-checks"), "{why}");
    let check = lab.shell("kubectl ferrolb check || true")?;
    ensure!(check.contains("FLB073") && check.contains(&text), "{check}");
    Ok(())
}

/// Waits until the speaker reports unchecked endpoints of each family for these reasons.
fn wait_unchecked(lab: &Lab, reasons: &[UncheckedReason]) -> Result<()> {
    wait_for(lab, NODE, &format!("unchecked endpoints: {reasons:?}"), |status| {
        let found = status.unchecked_health_checks.iter().map(|it| &it.reason);
        found.eq(reasons).then_some(())
    })
}

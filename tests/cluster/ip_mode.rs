//! `ipMode`, for a client on the segment and for a pod as client. With VIP, kube-proxy on every
//! node intercepts connections to the address. With Proxy, no kube-proxy does so, and connections
//! reach the announcing node, if there is one. A change of the mode keeps the address.

use crate::pools::{self, STATE_MAX};
use crate::scenario::{run_scenario, step};
use crate::segment;
use crate::services::{self, ADDRESS_ASSIGNED, WEB, http};
use anyhow::{Result, ensure};
use ferrolb_lab::process::{self, Launch};
use ferrolb_lab::setup::Tools;
use ferrolb_lab::topology::{CLIENT, Host, pod_addresses};
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::facts::IP_MODE_ANNOTATION;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The node on which the pods run, and the only node that may announce.
const POD_NODE: &str = "node1";
const OWNER: &str = "node2";
/// The pod that acts as a client.
const CLIENT_POD: &str = "podclient";
/// Process on the owner that serves the address while kube-proxy does not.
const LISTENER: &str = "listener";

/// Parts of the message of `AddressAssigned` with ipMode Proxy.
const NOT_ANNOUNCED: Option<&str> = Some("so the address is not announced");
const ANNOUNCED: Option<&str> = Some("and the address is announced");

#[test]
fn ip_mode_decides_if_kube_proxy_intercepts_connections() {
    run_scenario(&Options { nodes: 2, ..Options::named("ipmode") }, |lab| {
        lab.start_ferrolb()?;
        let (address, client_pod) =
            step("a Service has its pod on one node and is announced by another one", || {
                set_up(lab)
            })?;
        let owner = Host::node(2).v4().into();
        let pod_gateway = pod_addresses(1, 1)[0];
        let client = Host::client().v4().into();
        let vip = || {
            wait_mode(lab, address, "VIP", None)?;
            wait_rules(lab, address, true)?;
            // The page names the source address that the pod saw: translated on the owner, or on
            // the node of the client pod.
            wait_page(lab, CLIENT, address, "web", owner)?;
            wait_page(lab, CLIENT_POD, address, "web", pod_gateway)
        };
        step("VIP: a LAN client is served through the owner, and a pod by its own node", vip)?;
        step(
            "Proxy: no node has rules for the address or announces it, and the condition reports it",
            || {
                set_mode(lab, Some("Proxy"))?;
                wait_mode(lab, address, "Proxy", NOT_ANNOUNCED)?;
                wait_rules(lab, address, false)?;
                segment::wait_unannounced(lab, address)?;
                [CLIENT, CLIENT_POD]
                    .iter()
                    .try_for_each(|from| check_unreachable(lab, from, address))
            },
        )?;
        step(
            "Proxy,announce: a server on the owner gets the connections of the client and the pod",
            || {
                set_mode(lab, Some("Proxy,announce"))?;
                wait_mode(lab, address, "Proxy", ANNOUNCED)?;
                // The reply cannot come from the owner's kernel, which does not have the address
                // yet.
                ensure!(
                    segment::wait_owner(lab, address)? == OWNER,
                    "another node owns the address"
                );
                start_listener(lab, address)?;
                wait_page(lab, CLIENT, address, LISTENER, client)?;
                wait_page(lab, CLIENT_POD, address, LISTENER, client_pod)?;
                wait_rules(lab, address, false)
            },
        )?;
        step("VIP again: the pod serves the same address", || {
            lab.stop(LISTENER, Signal::KILL)?;
            lab.exec(OWNER, &["ip", "address", "del", &format!("{address}/32"), "dev", "lo"])?;
            set_mode(lab, None)?;
            vip()
        })?;
        step(
            "the pool sets Proxy for its Services, and an annotation overrides it with VIP",
            || {
                let mut pool = pools::pool("lan", &["172.30.0.200"]);
                pool["spec"]["ipMode"] = json!("Proxy");
                lab.apply_objects(&[pool])?;
                wait_mode(lab, address, "Proxy", NOT_ANNOUNCED)?;
                segment::wait_unannounced(lab, address)?;
                set_mode(lab, Some("VIP"))?;
                wait_mode(lab, address, "VIP", None)?;
                wait_page(lab, CLIENT, address, "web", owner)
            },
        )
    });
}

/// Creates the objects. Returns the Service's address and the client pod's address.
fn set_up(lab: &Lab) -> Result<(Ipv4Addr, IpAddr)> {
    let mut advertisement = pools::advertisement();
    advertisement["spec"] =
        json!({"nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": OWNER}}]});
    lab.apply_objects(&[pools::pool("lan", &["172.30.0.200"]), advertisement])?;
    lab.pod("web", POD_NODE, &WEB)?;
    lab.pod(CLIENT_POD, POD_NODE, &[])?;
    let client_pod = lab
        .kubectl(&["get", "pod", CLIENT_POD, "-o", "jsonpath={.status.podIP}"])?
        .trim()
        .parse()?;
    let address = services::serve(lab, "web")?;
    ensure!(
        segment::wait_owner(lab, address)? == OWNER,
        "another node than {OWNER} owns the address"
    );
    Ok((address, client_pod))
}

/// Sets the ipMode annotation of the Service, or removes it.
fn set_mode(lab: &Lab, mode: Option<&str>) -> Result<()> {
    services::patch(lab, "web", &json!({"metadata": {"annotations": {(IP_MODE_ANNOTATION): mode}}}))
}

/// Waits until the ingress of the Service has this ipMode, and the message of its condition
/// contains `message`, or does not mention ipMode if `message` is `None`.
fn wait_mode(lab: &Lab, address: Ipv4Addr, mode: &str, message: Option<&str>) -> Result<()> {
    let expect = json!([{"ip": address, "ipMode": mode}]);
    services::wait_for(lab, "web", &format!("{expect}"), |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)
            .filter(|condition| condition.status == "True")?;
        let matches = match message {
            Some(message) => condition.message.contains(message),
            None => !condition.message.contains("ipMode"),
        };
        (matches && ingress(service) == expect).then_some(())
    })
}

/// Returns `status.loadBalancer.ingress`.
fn ingress(service: &Service) -> Value {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    json!(balancer.map(|balancer| &balancer.ingress))
}

/// Waits until kube-proxy has rules for the address on both nodes, or on none if `expect` is false.
fn wait_rules(lab: &Lab, address: Ipv4Addr, expect: bool) -> Result<()> {
    wait::until(
        &format!("kube-proxy has rules for {address} on all nodes: {expect}"),
        STATE_MAX,
        || {
            for node in lab.nodes() {
                let has =
                    lab.exec(&node, &["nft", "list", "ruleset"])?.contains(&address.to_string());
                ensure!(has == expect, "{node} has rules for {address}: {has}, not {expect}");
            }
            Ok(Some(()))
        },
    )
}

/// Waits until `from` gets the page of `server`, which saw a request from the address `seen`.
fn wait_page(lab: &Lab, from: &str, address: Ipv4Addr, server: &str, seen: IpAddr) -> Result<()> {
    wait::until(&format!("{from} gets the page of {server}"), STATE_MAX, || {
        let page = lab.http_get(from, http(address), "/")?;
        ensure!(
            page.body.trim() == format!("{server} {seen}"),
            "{page:?} instead of {server} with a request from {seen}"
        );
        Ok(Some(()))
    })
}

fn check_unreachable(lab: &Lab, from: &str, address: Ipv4Addr) -> Result<()> {
    let response = lab.http_get(from, http(address), "/");
    ensure!(response.is_err(), "{from} got {response:?}");
    Ok(())
}

/// Adds the address to the owner's kernel and starts a web server there.
fn start_listener(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    lab.exec(OWNER, &["ip", "address", "add", &format!("{address}/32"), "dev", "lo"])?;
    let launch = Launch {
        name: LISTENER.to_owned(),
        host: OWNER.to_owned(),
        node: Some(OWNER.to_owned()),
        program: Tools::ready()?.programs.lab.clone(),
        args: vec!["serve".to_owned(), LISTENER.to_owned(), "80".to_owned()],
        env: BTreeMap::new(),
        low_priority: false,
    };
    process::start(lab.state(), launch).map(drop)
}

//! `ipMode`, seen from the LAN and from a pod. With VIP kube-proxy intercepts the address on every
//! node, with Proxy on none, and a connection reaches the announcing node, if there is one. A
//! change in place keeps the address.

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

/// The node of the pods, and the only node that announces.
const INSIDE: &str = "node1";
const OWNER: &str = "node2";
/// The pod that acts as a client.
const CLIENT_POD: &str = "asker";
/// Process that accepts connections to the address on its owner when kube-proxy does not.
const LISTENER: &str = "listener";

/// Messages of a Service's condition about its mode.
const NOT_ANNOUNCED: Option<&str> = Some("so the address is not announced");
const ANNOUNCED: Option<&str> = Some("and the address is announced");

#[test]
fn kube_proxy_intercepts_vip_and_proxy_connections_reach_the_announcing_node() {
    run_scenario(&Options { nodes: 2, ..Options::named("ipmode") }, |lab| {
        lab.start_ferrolb()?;
        let (address, asker) = step(
            "a Service on one node, announced by another, and a pod that asks for it",
            || set_up(lab),
        )?;
        let owner = Host::node(2).v4().into();
        let inside = pod_addresses(1, 1)[0];
        let client = Host::client().v4().into();
        let vip = || {
            mode_is(lab, address, "VIP", None)?;
            rules(lab, address, true)?;
            // The page names the source address that its pod saw: translated on the owner, or on
            // the client pod's own node.
            page(lab, CLIENT, address, "web", owner)?;
            page(lab, CLIENT_POD, address, "web", inside)
        };
        step("VIP: the LAN's way is through the owner; the pod's never leaves its node", vip)?;
        step(
            "Proxy: the address stays, kube-proxy drops it, nobody answers for it, and it says so",
            || {
                set_mode(lab, Some("Proxy"))?;
                mode_is(lab, address, "Proxy", NOT_ANNOUNCED)?;
                rules(lab, address, false)?;
                segment::wait_unannounced(lab, address)?;
                [CLIENT, CLIENT_POD].iter().try_for_each(|from| unreachable(lab, from, address))
            },
        )?;
        step(
            "Proxy,announce: its owner answers for it, and what takes it there serves the LAN and the pod",
            || {
                set_mode(lab, Some("Proxy,announce"))?;
                mode_is(lab, address, "Proxy", ANNOUNCED)?;
                // The reply cannot come from the owner's kernel, which does not have the address
                // yet.
                ensure!(segment::wait_owner(lab, address)? == OWNER, "another node announces it");
                listen(lab, address)?;
                page(lab, CLIENT, address, LISTENER, client)?;
                page(lab, CLIENT_POD, address, LISTENER, asker)?;
                rules(lab, address, false)
            },
        )?;
        step("VIP again: the same address, and the first page", || {
            lab.stop(LISTENER, Signal::KILL)?;
            lab.exec(OWNER, &["ip", "address", "del", &format!("{address}/32"), "dev", "lo"])?;
            set_mode(lab, None)?;
            vip()
        })?;
        step("the pool says Proxy for all its Services, but for one that asks for VIP", || {
            let mut pool = pools::pool("lan", &["172.30.0.200"]);
            pool["spec"]["ipMode"] = json!("Proxy");
            lab.apply_objects(&[pool])?;
            mode_is(lab, address, "Proxy", NOT_ANNOUNCED)?;
            segment::wait_unannounced(lab, address)?;
            set_mode(lab, Some("VIP"))?;
            mode_is(lab, address, "VIP", None)?;
            page(lab, CLIENT, address, "web", owner)
        })
    });
}

/// Creates the objects. Returns the Service's address and the client pod's address.
fn set_up(lab: &Lab) -> Result<(Ipv4Addr, IpAddr)> {
    let mut advertisement = pools::advertisement();
    advertisement["spec"] =
        json!({"nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": OWNER}}]});
    lab.apply_objects(&[pools::pool("lan", &["172.30.0.200"]), advertisement])?;
    lab.pod("web", INSIDE, &WEB)?;
    lab.pod(CLIENT_POD, INSIDE, &[])?;
    let asker = lab
        .kubectl(&["get", "pod", CLIENT_POD, "-o", "jsonpath={.status.podIP}"])?
        .trim()
        .parse()?;
    let address = services::serve(lab, "web")?;
    ensure!(segment::wait_owner(lab, address)? == OWNER, "the advertisement names {OWNER}");
    Ok((address, asker))
}

/// Sets the Service's annotation, or removes it.
fn set_mode(lab: &Lab, mode: Option<&str>) -> Result<()> {
    services::patch(lab, "web", &json!({"metadata": {"annotations": {(IP_MODE_ANNOTATION): mode}}}))
}

/// Waits until the Service has its address in this mode, and its condition has the expected
/// message.
fn mode_is(lab: &Lab, address: Ipv4Addr, mode: &str, says: Option<&str>) -> Result<()> {
    let expect = json!([{"ip": address, "ipMode": mode}]);
    services::wait_for(lab, "web", &format!("{expect}"), |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)
            .filter(|condition| condition.status == "True")?;
        let told = match says {
            Some(says) => condition.message.contains(says),
            None => !condition.message.contains("ipMode"),
        };
        (told && ingress(service) == expect).then_some(())
    })
}

/// Returns `status.loadBalancer.ingress`.
fn ingress(service: &Service) -> Value {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    json!(balancer.map(|balancer| &balancer.ingress))
}

/// Waits until kube-proxy has rules for the address on both nodes, or on none.
fn rules(lab: &Lab, address: Ipv4Addr, expect: bool) -> Result<()> {
    wait::until(&format!("kube-proxy's rules for {address}: {expect}"), STATE_MAX, || {
        for node in lab.nodes() {
            let has = lab.exec(&node, &["nft", "list", "ruleset"])?.contains(&address.to_string());
            ensure!(has == expect, "{node} has rules: {has}");
        }
        Ok(Some(()))
    })
}

/// Waits until `from` gets the page of `server`, which saw a request from the address `seen`.
fn page(lab: &Lab, from: &str, address: Ipv4Addr, server: &str, seen: IpAddr) -> Result<()> {
    wait::until(&format!("{from} gets the page of {server}"), STATE_MAX, || {
        let page = lab.http_get(from, http(address), "/")?;
        ensure!(
            page.body.trim() == format!("{server} {seen}"),
            "{page:?} instead of {server} with a request from {seen}"
        );
        Ok(Some(()))
    })
}

fn unreachable(lab: &Lab, from: &str, address: Ipv4Addr) -> Result<()> {
    let answer = lab.http_get(from, http(address), "/");
    ensure!(answer.is_err(), "{from} got {answer:?}");
    Ok(())
}

/// Adds the address to the owner's kernel and starts a web server there.
fn listen(lab: &Lab, address: Ipv4Addr) -> Result<()> {
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

//! `ipMode`, seen from the LAN and from a pod: with VIP kube-proxy takes the address on every node, with Proxy on none, and whoever connects
//! reaches what is announced, if anything is. Changed in place, the address stays.

use crate::client_wire;
use crate::pools::{self, BRINGING_MAX};
use crate::services::{self, ADDRESS_ASSIGNED, WEB, http};
use crate::stage::{play, step};
use anyhow::{Result, ensure};
use ferrolb_proto::facts::IP_MODE;
use ferrolb_tests::process::{self, Launch};
use ferrolb_tests::setup::Tools;
use ferrolb_tests::topology::{CLIENT, Host, pod_addresses};
use ferrolb_tests::{Lab, Options, Signal, wait};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The node of the pods, and the only one that announces.
const INSIDE: &str = "node1";
const OWNER: &str = "node2";
/// The pod that asks.
const ASKER: &str = "asker";
/// What takes the address on its owner when kube-proxy does not.
const LISTENER: &str = "listener";

/// What a Service's condition says of its mode.
const NOT_ANNOUNCED: Option<&str> = Some("it is not announced");
const ANNOUNCED: Option<&str> = Some("it is announced all the same");

#[test]
fn vip_is_cut_short_by_kube_proxy_and_proxy_is_left_to_what_is_announced() {
    play(&Options { nodes: 2, ..Options::named("ipmode") }, |lab| {
        lab.start_ferrolb()?;
        let (address, asker) =
            step("a Service on one node, announced by another, and a pod that asks for it", || set_up(lab))?;
        let owner = Host::node(2).v4().into();
        let inside = pod_addresses(1, 1)[0];
        let client = Host::client().v4().into();
        let vip = || {
            mode_is(lab, address, "VIP", None)?;
            rules(lab, address, true)?;
            // The page says from where its pod was asked: translated on the owner, and on the asking pod's own node.
            page(lab, CLIENT, address, "web", owner)?;
            page(lab, ASKER, address, "web", inside)
        };
        step("VIP: the LAN's way is through the owner; the pod's never leaves its node", vip)?;
        step("Proxy: the address stays, kube-proxy drops it, nobody answers for it, and it says so", || {
            ask_for(lab, Some("Proxy"))?;
            mode_is(lab, address, "Proxy", NOT_ANNOUNCED)?;
            rules(lab, address, false)?;
            client_wire::wait_silent(lab, address)?;
            [CLIENT, ASKER].iter().try_for_each(|from| unreachable(lab, from, address))
        })?;
        step("Proxy,announce: its owner answers for it, and what takes it there serves the LAN and the pod", || {
            ask_for(lab, Some("Proxy,announce"))?;
            mode_is(lab, address, "Proxy", ANNOUNCED)?;
            // Not its kernel, which does not have the address yet.
            ensure!(client_wire::wait_owner(lab, address)? == OWNER, "another node announces it");
            listen(lab, address)?;
            page(lab, CLIENT, address, LISTENER, client)?;
            page(lab, ASKER, address, LISTENER, asker)?;
            rules(lab, address, false)
        })?;
        step("VIP again: the same address, and the first page", || {
            lab.stop(LISTENER, Signal::KILL)?;
            lab.exec(OWNER, &["ip", "address", "del", &format!("{address}/32"), "dev", "lo"])?;
            ask_for(lab, None)?;
            vip()
        })?;
        step("the pool says Proxy for all its Services, but for one that asks for VIP", || {
            let mut pool = pools::pool("lan", &["172.30.0.200"]);
            pool["spec"]["ipMode"] = json!("Proxy");
            lab.apply_objects(&[pool])?;
            mode_is(lab, address, "Proxy", NOT_ANNOUNCED)?;
            client_wire::wait_silent(lab, address)?;
            ask_for(lab, Some("VIP"))?;
            mode_is(lab, address, "VIP", None)?;
            page(lab, CLIENT, address, "web", owner)
        })
    });
}

/// The Service's address, and that of the pod that asks.
fn set_up(lab: &Lab) -> Result<(Ipv4Addr, IpAddr)> {
    let mut advertisement = pools::advertisement();
    advertisement["spec"] = json!({"nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": OWNER}}]});
    lab.apply_objects(&[pools::pool("lan", &["172.30.0.200"]), advertisement])?;
    lab.pod("web", INSIDE, &WEB)?;
    lab.pod(ASKER, INSIDE, &[])?;
    let asker = lab.kubectl(&["get", "pod", ASKER, "-o", "jsonpath={.status.podIP}"])?.trim().parse()?;
    let address = services::serve(lab, "web")?;
    ensure!(client_wire::wait_owner(lab, address)? == OWNER, "the advertisement names {OWNER}");
    Ok((address, asker))
}

/// Sets the Service's annotation, or takes it away.
fn ask_for(lab: &Lab, mode: Option<&str>) -> Result<()> {
    services::patch(lab, "web", &json!({"metadata": {"annotations": {(IP_MODE): mode}}}))
}

/// Waits until the Service has its address in this mode, and says of it what it should.
fn mode_is(lab: &Lab, address: Ipv4Addr, mode: &str, says: Option<&str>) -> Result<()> {
    let expect = json!([{"ip": address, "ipMode": mode}]);
    services::wait_for(lab, "web", &format!("{expect}"), |service| {
        let condition =
            services::condition(service, ADDRESS_ASSIGNED).filter(|condition| condition.status == "True")?;
        let told = match says {
            Some(says) => condition.message.contains(says),
            None => !condition.message.contains("ipMode"),
        };
        (told && ingress(service) == expect).then_some(())
    })
}

/// `status.loadBalancer.ingress` as it is.
fn ingress(service: &Service) -> Value {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    json!(balancer.map(|balancer| &balancer.ingress))
}

/// Waits until kube-proxy has rules for the address on both nodes, or on none.
fn rules(lab: &Lab, address: Ipv4Addr, expect: bool) -> Result<()> {
    wait::until(&format!("kube-proxy's rules for {address}: {expect}"), BRINGING_MAX, || {
        for node in lab.nodes() {
            let has = lab.exec(&node, &["nft", "list", "ruleset"])?.contains(&address.to_string());
            ensure!(has == expect, "{node}: {has}");
        }
        Ok(Some(()))
    })
}

/// Waits until `from` gets the page of `server`, which was asked from the address `seen`.
fn page(lab: &Lab, from: &str, address: Ipv4Addr, server: &str, seen: IpAddr) -> Result<()> {
    wait::until(&format!("{from} gets the page of {server}"), BRINGING_MAX, || {
        let page = lab.http_get(from, http(address), "/")?;
        ensure!(page.body.trim() == format!("{server} {seen}"), "{page:?} instead of {server} asked by {seen}");
        Ok(Some(()))
    })
}

fn unreachable(lab: &Lab, from: &str, address: Ipv4Addr) -> Result<()> {
    let answer = lab.http_get(from, http(address), "/");
    ensure!(answer.is_err(), "{from} got {answer:?}");
    Ok(())
}

/// Gives the owner's kernel the address and starts a web server there.
fn listen(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    lab.exec(OWNER, &["ip", "address", "add", &format!("{address}/32"), "dev", "lo"])?;
    let launch = Launch {
        name: LISTENER.to_owned(),
        host: OWNER.to_owned(),
        node: Some(OWNER.to_owned()),
        program: Tools::ready()?.programs.lab.clone(),
        args: vec!["serve".to_owned(), LISTENER.to_owned(), "80".to_owned()],
        env: BTreeMap::new(),
        yields: false,
    };
    process::start(lab.state(), launch).map(drop)
}

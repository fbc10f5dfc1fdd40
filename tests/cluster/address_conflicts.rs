//! Conflicting hosts: a host that takes an address of FerroLB, a host that had it first, and a node
//! whose own kernel replies for it. The SpeakerStatus reports each conflict, and the speakers send
//! only a limited number of frames.

use crate::frame_log::{self, FrameLog, RecordedFrame};
use crate::metrics::metric;
use crate::pools::{STATE_MAX, wait_reason};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services::{self, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE, Host};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::api::{CustomResourceKind, GROUP, NAMESPACE, resource};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::HelloKeyRing;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The first addresses of the pool.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
const THIRD_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 202);
const FOURTH_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 203);
/// Time for which a foreign host announces the address.
const CONFLICT_TIME: Duration = Duration::from_secs(11);
/// Maximum number of the owner's gratuitous ARP frames during the conflict: one defense every 10 s
/// (RFC 5227 section 2.4), in both ARP forms.
const DEFENSES_MAX: usize = 2 * 2;
/// Maximum time until a node announces the address after the foreign host has removed it: three
/// times the expected 15 s.
const REANNOUNCED_MAX: Duration = Duration::from_secs(45);
/// Time after which a new owner no longer repeats its announcement: it repeats it for 5 s.
const REPEATS_END: Duration = Duration::from_secs(6);

#[test]
fn the_owner_defends_its_address_and_reports_the_foreign_host() {
    run_scenario(&Options::named("conflicts"), |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        services::apply_pool_and_pod(lab, "node1")?;
        let address = services::serve(lab, "web")?;
        ensure!(address == FIRST_ADDRESS, "the first address is {address}");
        let owner = segment::wait_owner(lab, address)?;
        wait::during(REPEATS_END, || Ok(()))?;
        let (_, evidence) = step("a foreign host announces an address that a node owns", || {
            FrameLog::of(lab, &keys, || announce_from_foreign_host(lab, address, &owner))
        })?;
        step("the owner keeps the address and defends it every 10 s at most", || {
            let mac = mac(&segment::mac_of(&owner)?)?;
            let defenses = evidence.gratuitous_frames(address, mac).len();
            print_measured(&format!(
                "address announced by a foreign host for {CONFLICT_TIME:?}: {defenses} defense frames"
            ));
            ensure!(
                (1..=DEFENSES_MAX).contains(&defenses),
                "{defenses} defense frames within {CONFLICT_TIME:?}"
            );
            let claims = evidence.claims(address);
            ensure!(claims.is_empty(), "a speaker claimed the address: {claims:?}");
            let now = SegmentSocket::open(lab)?.replying(address)?;
            ensure!(now.contains(&mac), "{owner} does not reply, but {now:?} do");
            Ok(())
        })?;
        step(
            "a node reports an assigned address that a foreign host already uses, and nobody takes it",
            || already_in_use(lab, &keys),
        )?;
        step(
            "a Service without a request gets another address than that of a foreign host",
            || replaced(lab),
        )?;
        step("the owner reports another node whose kernel replies for the first address", || {
            kernel_replies(lab, address)
        })
    });
}

/// Announces the address repeatedly from the control plane's host, and waits until the owner
/// reports the conflict.
fn announce_from_foreign_host(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<()> {
    let conflicts = || metric(lab, owner, "ferrolb_speaker_strangers_total");
    let (before, text, seconds) =
        (conflicts()?, address.to_string(), CONFLICT_TIME.as_secs().to_string());
    // `arping` sends from the address, so the host needs the address for that time.
    let prefix = format!("{address}/32");
    lab.exec(CONTROL_PLANE, &["ip", "address", "add", &prefix, "dev", "lo"])?;
    let sent = lab.try_exec(CONTROL_PLANE, &["arping", "-U", "-c", &seconds, "-I", "eth0", &text]);
    lab.exec(CONTROL_PLANE, &["ip", "address", "delete", &prefix, "dev", "lo"])?;
    sent?;
    ensure!(conflicts()? > before, "the owner counted no frame of the foreign host");
    wait_issue(lab, owner, address, "AddressConflict", &Host::control_plane().mac(), None)
}

/// Assigns to the next Service an address that a foreign host already uses. Checks that the
/// speakers report the host, and announce the address when the host has removed it, and not before.
fn already_in_use(lab: &Lab, keys: &HelloKeyRing) -> Result<()> {
    let (cp, prefix) = (Host::control_plane(), format!("{SECOND_ADDRESS}/32"));
    lab.exec(CONTROL_PLANE, &["ip", "address", "add", &prefix, "dev", "eth0"])?;
    let ((), evidence) = FrameLog::of(lab, keys, || {
        let mut web2 = service("web2", json!({}));
        let requested = json!({"ferrolb.io/loadBalancerIPs": SECOND_ADDRESS.to_string()});
        web2["metadata"]["annotations"] = requested;
        lab.apply_objects(&[web2])?;
        services::wait_addresses(lab, "web2", &[&SECOND_ADDRESS.to_string()])?;
        wait::until("a node reports the foreign host", STATE_MAX, || {
            let has_conflict = |node: &String| {
                has_issue(lab, node, SECOND_ADDRESS, "AddressConflict", &cp.mac(), None)
            };
            let results: Vec<_> = lab.nodes().iter().map(has_conflict).collect();
            if results.iter().any(Result::is_ok) {
                Ok(Some(()))
            } else {
                results.into_iter().collect::<Result<()>>().map(|()| None)
            }
        })?;
        wait::during(REPEATS_END, || Ok(()))
    })?;
    let (claims, cp_name) = (evidence.claims(SECOND_ADDRESS), Host::control_plane().name);
    ensure!(claims.is_empty(), "a speaker claimed the address: {claims:?}");
    let senders = evidence.announcements_and_replies(lab, SECOND_ADDRESS);
    let is_foreign = |frame: &RecordedFrame| frame.host == cp_name;
    ensure!(senders.iter().all(is_foreign), "a node uses the address: {senders:?}");
    lab.exec(CONTROL_PLANE, &["ip", "address", "delete", &prefix, "dev", "eth0"])?;
    let removed_at = wait::now();
    wait::until_heard("a node announces the address", REANNOUNCED_MAX, || {
        segment::owner(lab, SECOND_ADDRESS).map(Some)
    })?;
    print_measured(&format!(
        "address in use by a foreign host: announced {:?} after the host removed it",
        removed_at.elapsed()
    ));
    Ok(())
}

/// Creates a Service whose first address a foreign host already uses. Checks that it gets the next
/// one, that a node announces it, and that an Event and the pool name the address that it left.
fn replaced(lab: &Lab) -> Result<()> {
    let prefix = format!("{THIRD_ADDRESS}/32");
    lab.exec(CONTROL_PLANE, &["ip", "address", "add", &prefix, "dev", "eth0"])?;
    let start = wait::now();
    lab.apply_objects(&[service("web3", json!({}))])?;
    services::wait_addresses(lab, "web3", &[&FOURTH_ADDRESS.to_string()])?;
    segment::wait_owner(lab, FOURTH_ADDRESS)?;
    print_measured(&format!(
        "new address in use by a foreign host: another one is announced after {:?}",
        start.elapsed()
    ));
    let left = format!("{THIRD_ADDRESS} was released: another host replied for it");
    wait::until("an Event names the address", STATE_MAX, || {
        let events = services::events(lab, "web3")?;
        let names = |event: &Event| event.note.as_ref().is_some_and(|it| it.contains(&left));
        Ok(events.iter().any(names).then_some(()))
    })?;
    let named =
        format!("{THIRD_ADDRESS} (in use by another host, as Service default/web3 has found)");
    wait_reason(lab, CustomResourceKind::IPAddressPool, "lan", "Valid", &named)?;
    lab.exec(CONTROL_PLANE, &["ip", "address", "delete", &prefix, "dev", "eth0"]).map(drop)
}

/// Adds the address to the loopback interface of a node that does not own it, and checks that the
/// owner reports this node: a kernel replies to ARP requests for the addresses of all its
/// interfaces.
fn kernel_replies(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let owner = segment::owner(lab, address)?;
    let node = lab
        .nodes()
        .into_iter()
        .find(|node| *node != owner)
        .context("the lab has no second node")?;
    let prefix = format!("{address}/32");
    lab.exec(&node, &["ip", "address", "add", &prefix, "dev", "lo"])?;
    // The kernel's reply to this client is unicast, so the owner does not receive it. The owner
    // receives the gratuitous ARP frame below.
    let mut socket = SegmentSocket::open(lab)?;
    wait::until_heard("two hosts reply", STATE_MAX, || {
        Ok((socket.replying(address)?.len() == 2).then_some(()))
    })?;
    lab.exec(&node, &["arping", "-U", "-c", "1", "-I", "eth0", &address.to_string()])?;
    wait_issue(lab, &owner, address, "KernelAnswers", &segment::mac_of(&node)?, Some(&node))?;
    lab.exec(&node, &["ip", "address", "delete", &prefix, "dev", "lo"])?;
    let page = lab.http_get(CLIENT, services::http(address), "/")?;
    ensure!(page.status == 200, "the page has status {}", page.status);
    Ok(())
}

fn wait_issue(
    lab: &Lab,
    node: &str,
    address: Ipv4Addr,
    reason: &str,
    mac: &str,
    member: Option<&str>,
) -> Result<()> {
    wait::until(&format!("{node} reports {reason}"), STATE_MAX, || {
        has_issue(lab, node, address, reason, mac, member).map(Some)
    })
}

/// Checks that the SpeakerStatus of a node lists an issue with these fields
/// (`status.interfaces[].issues[]`).
fn has_issue(
    lab: &Lab,
    node: &str,
    address: Ipv4Addr,
    reason: &str,
    mac: &str,
    member: Option<&str>,
) -> Result<()> {
    let status = lab.api(async |client| {
        let kind = resource(CustomResourceKind::SpeakerStatus, GROUP);
        let speakers: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &kind);
        Ok(speakers.get(node).await?.data["status"].take())
    })?;
    let interfaces = status["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut issues =
        interfaces.iter().filter_map(|interface| interface["issues"].as_array()).flatten();
    let matches = |issue: &Value| {
        issue["address"] == address.to_string()
            && issue["reason"] == reason
            && issue["mac"] == mac
            && issue["node"].as_str().filter(|node| !node.is_empty()) == member
    };
    ensure!(issues.any(matches), "the status of {node} is {status}");
    Ok(())
}

fn mac(text: &str) -> Result<Mac> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map(Mac)
        .with_context(|| format!("{text} is not a MAC address"))
}

//! Frame loss on the switch: hello frames between two nodes, all FerroLB frames, and all frames
//! between two halves of the segment.

use crate::frame_log::{self, FrameLog};
use crate::metrics::metric;
use crate::pools::STATE_MAX;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services::{self, WEB, http, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::lab::faults::{datagram_drop, hello_drop};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_lab::wait::WorkClock;
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::wire::hello::{self, HelloKeyRing};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Time for which two nodes receive no hello frames from each other: longer than the time for which
/// a claim is valid unless it is repeated.
const HELLOS_LOST: Duration = Duration::from_secs(15);
/// Minimum number of suspicions that challenges refute for each that they do not: on a busy
/// machine, a reply may take longer than the 40 ms of a round of challenges.
const REFUTED_PER_FAILURE: f64 = 20.0;
/// Time for which no speaker receives a frame of another speaker: longer than the interval at which
/// an address is probed that another node uses.
const ALL_LOST: Duration = Duration::from_secs(12);
/// Maximum time from the start of the frame loss until the other nodes have left the address to its
/// owner, if UDP is lost, too: a busy machine, three times the expected second.
const TWO_OWNERS_MAX: Duration = Duration::from_secs(3);
/// Maximum time from the end of the frame loss until only one owner remains: three times the
/// expected second, for a busy machine.
const HEAL_MAX: Duration = Duration::from_secs(3);
/// Time for which the test records frames after the loss has ended.
const OBSERVED_AFTER: Duration = Duration::from_secs(5);

#[test]
fn one_owner_remains_after_the_switch_drops_frames() {
    run_scenario(&Options::named("lostframes"), |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        services::apply_pool_and_pod(lab, "node1")?;
        for node in ["node2", "node3"] {
            lab.pod(&format!("web{node}"), node, &WEB)?;
        }
        // With policy Local, each owner has a pod of its own, also while it is separated from the
        // other nodes.
        lab.apply_objects(&[service("web", json!({"externalTrafficPolicy": "Local"}))])?;
        let address = services::address(lab, "web")?;
        let owner = segment::wait_owner(lab, address)?;
        step(
            "hellos between the owner and a node are lost: challenges succeed, and the owner stays",
            || drop_hellos(lab, &keys, address, &owner),
        )?;
        step("all FerroLB frames are lost, UDP passes: no other node replies", || {
            drop_all(lab, &keys, address, &owner, false)
        })?;
        step("all FerroLB frames and UDP are lost: only the owner replies after a moment", || {
            drop_all(lab, &keys, address, &owner, true)
        })?;
        step(
            "the segment is split: each half is served, and one owner remains after the repair",
            || split_segment(lab, &keys, address, &owner),
        )
    });
}

/// Drops multicast hello frames between the owner and one other node, and no other frames. Checks
/// that only the owner replies, and that no speaker claims the address.
fn drop_hellos(lab: &Lab, keys: &HelloKeyRing, address: Ipv4Addr, owner: &str) -> Result<()> {
    let other =
        lab.nodes().into_iter().find(|node| node != owner).context("the lab has no second node")?;
    let counts = || -> Result<(f64, f64)> {
        let sum = |name: &str| {
            lab.nodes().iter().map(|node| metric(lab, node, name)).sum::<Result<f64>>()
        };
        Ok((
            metric(lab, &other, "ferrolb_speaker_suspicions_refuted_total")?,
            sum("ferrolb_speaker_deaths_total")?,
        ))
    };
    let (refuted, failures) = counts()?;
    let (owners, evidence) = FrameLog::of(lab, keys, || {
        let drop_rule = |from: &str, to: &str| {
            let (kind, group) = (hello::ETHER_TYPE, hello::GROUP);
            format!(
                "iifname \"{from}\" oifname \"{to}\" ether type {kind:#x} ether daddr {group} drop"
            )
        };
        lab.set_drops(&[drop_rule(owner, &other), drop_rule(&other, owner)])?;
        let (mut socket, mut owners) = (SegmentSocket::open(lab)?, BTreeSet::new());
        wait::during(HELLOS_LOST, || {
            owners.append(&mut socket.replying(address)?);
            Ok(())
        })?;
        lab.set_drops(&[])?;
        Ok(owners)
    })?;
    let owners: Vec<_> = owners.into_iter().map(|mac| segment::host_name(lab, mac)).collect();
    let claims = evidence.claims(address);
    ensure!(
        owners == [owner] && claims.is_empty(),
        "{owners:?} replied, and the claims of the address are {claims:?}"
    );
    let (now_refuted, now_failures) = counts()?;
    ensure!(now_refuted > refuted, "{other} suspected no node, so no hello frame was lost");
    let (refuted, failures) = (now_refuted - refuted, now_failures - failures);
    ensure!(
        failures * REFUTED_PER_FAILURE <= refuted,
        "{failures} nodes were detected as failed, and {refuted} suspicions refuted"
    );
    print_measured(&format!(
        "hellos lost for {HELLOS_LOST:?}: {refuted} suspicions refuted, {failures} not"
    ));
    Ok(())
}

/// Drops all FerroLB frames. The speakers recognize each other by UDP, and nothing moves. If UDP is
/// dropped as well, other nodes may take the address for a moment, and leave it to its owner.
fn drop_all(
    lab: &Lab,
    keys: &HelloKeyRing,
    address: Ipv4Addr,
    owner: &str,
    drops_udp: bool,
) -> Result<()> {
    let mut drops = vec![hello_drop()];
    drops.extend(drops_udp.then(datagram_drop));
    let (dropped_at, evidence) = FrameLog::of(lab, keys, || {
        let dropped_at = wait::now();
        lab.set_drops(&drops)?;
        let mut socket = SegmentSocket::open(lab)?;
        services::wait_announced(lab, "web", "Announced", "HellosFiltered")?;
        wait::during(ALL_LOST, || socket.request(address))?;
        lab.set_drops(&[])?;
        wait::during(OBSERVED_AFTER, || socket.request(address))?;
        Ok(dropped_at)
    })?;
    ensure!(segment::owner(lab, address)? == owner, "the address has moved");
    let replies = evidence.announcements_and_replies(lab, address);
    let others = replies.iter().filter(|reply| reply.host != owner);
    let latest = others.map(|reply| reply.at.saturating_duration_since(dropped_at)).max();
    print_measured(&format!(
        "frames lost, UDP too: {drops_udp}; replies of other nodes until {latest:?}"
    ));
    let until = if drops_udp { TWO_OWNERS_MAX } else { Duration::ZERO };
    ensure!(latest.is_none_or(|latest| latest <= until), "another node replied after {latest:?}");
    Ok(())
}

/// Separates the client and the owner from the other nodes and the control plane's host, which acts
/// as a second client.
fn split_segment(lab: &Lab, keys: &HelloKeyRing, address: Ipv4Addr, owner: &str) -> Result<()> {
    let others = lab.nodes().into_iter().filter(|node| node != owner);
    let sides = [
        vec![CLIENT.to_owned(), owner.to_owned()],
        others.chain([CONTROL_PLANE.to_owned()]).collect(),
    ];
    let named = |side: &[String]| {
        side.iter().map(|host| format!("\"{host}\"")).collect::<Vec<_>>().join(", ")
    };
    let drop_rule = |from: &[String], to: &[String]| {
        format!("iifname {{ {} }} oifname {{ {} }} drop", named(from), named(to))
    };
    let (second, evidence) = FrameLog::of(lab, keys, || {
        lab.set_drops(&[drop_rule(&sides[0], &sides[1]), drop_rule(&sides[1], &sides[0])])?;
        wait_served_by(lab, CLIENT, address, owner)?;
        let second = wait::until("the other half has an owner", STATE_MAX, || {
            lab.http_get(CONTROL_PLANE, http(address), "/")?;
            let known = neighbor_entry(lab, CONTROL_PLANE, address)?
                .context("the client has no neighbor entry")?;
            Ok(lab
                .nodes()
                .into_iter()
                .find(|node| segment::mac_of(node).is_ok_and(|mac| mac == known)))
        })?;
        ensure!(second != owner, "{owner} serves the other half, too");
        wait_served_by(lab, CONTROL_PLANE, address, &second)?;
        wait_served_by(lab, CLIENT, address, owner)?;
        lab.set_drops(&[])?;
        let repaired_at = WorkClock::start();
        // No host sends requests while the test reads the entries, so announcements alone change
        // them.
        let mut entries = Vec::new();
        wait::during(OBSERVED_AFTER, || {
            let known = [CLIENT, CONTROL_PLANE].map(|host| neighbor_entry(lab, host, address));
            let [first, other] = known;
            entries.push((repaired_at.elapsed(), [first?, other?]));
            Ok(())
        })?;
        let now = segment::owner(lab, address)?;
        let owner = segment::mac_of(&now)?;
        let expected = [Some(owner.clone()), Some(owner)];
        let last_wrong = entries.iter().rposition(|(_, known)| *known != expected);
        let known_after = entries.get(last_wrong.map_or(0, |last| last + 1)).map(|(at, _)| *at);
        let known_after = known_after.with_context(|| {
            format!("{now} owns the address, but the clients' entries are {:?}", entries.last())
        })?;
        print_measured(&format!(
            "split segment: both clients have the entry of the owner {known_after:?} after the repair"
        ));
        ensure!(known_after <= HEAL_MAX, "the entries are correct after {known_after:?}");
        Ok(second)
    })?;
    let claims: BTreeSet<_> =
        evidence.claims(address).into_iter().map(|claim| claim.host).collect();
    ensure!(
        claims.contains(&second),
        "{second} served without a claim; nodes with claims: {claims:?}"
    );
    Ok(())
}

/// Waits until a client gets the page of the pod on this node.
fn wait_served_by(lab: &Lab, client: &str, address: Ipv4Addr, node: &str) -> Result<()> {
    wait::until(&format!("{client} is served by {node}"), STATE_MAX, || {
        let pod =
            lab.http_get(client, http(address), "/")?.pod().context("the page names no pod")?;
        ensure!(
            pod == format!("web{node}") || (pod == "web" && node == "node1"),
            "{pod} served the client"
        );
        Ok(Some(()))
    })
}

/// Returns the MAC address in a host's neighbor entry for an address.
fn neighbor_entry(lab: &Lab, host: &str, address: Ipv4Addr) -> Result<Option<String>> {
    let table = lab.exec(host, &["ip", "-json", "neigh", "show", "to", &address.to_string()])?;
    let table: Vec<Value> = serde_json::from_str(&table)?;
    Ok(table.iter().find_map(|entry| Some(entry["lladdr"].as_str()?.to_owned())))
}

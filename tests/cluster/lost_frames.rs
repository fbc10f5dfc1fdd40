//! Frame loss on the switch: hello frames alone, all FerroLB frames, and everything between two
//! halves.

use crate::frame_log::{self, FrameLog};
use crate::metrics::metric;
use crate::pools::STATE_MAX;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services::{self, WEB, http, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::wire::hello::{self, HelloKeyRing};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Time for which two nodes receive no hello frames of each other: longer than an unrepeated claim
/// is valid.
const HELLOS_LOST: Duration = Duration::from_secs(15);
/// Time for which no speaker receives frames of any other.
const ALL_LOST: Duration = Duration::from_secs(3);
/// Maximum time until one owner remains after the loss ends: three times the expected second, for a
/// busy machine.
const HEAL_MAX: Duration = Duration::from_secs(3);
/// Time for which the segment is observed after that.
const HEALED: Duration = Duration::from_secs(5);

#[test]
fn one_owner_remains_after_a_switch_lost_frames() {
    run_scenario(&Options::named("lostframes"), |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        services::apply_pool_and_pod(lab, "node1")?;
        for node in ["node2", "node3"] {
            lab.pod(&format!("web{node}"), node, &WEB)?;
        }
        // Policy Local: each node that replies has a pod of its own, also when it is cut off from
        // the others.
        lab.apply_objects(&[service("web", json!({"externalTrafficPolicy": "Local"}))])?;
        let address = services::address(lab, "web")?;
        let owner = segment::wait_owner(lab, address)?;
        step(
            "hellos get lost between the owner and another: challenges pass, and nothing changes",
            || hellos_lost(lab, &keys, address, &owner),
        )?;
        let owner =
            step("all of ours gets lost: all answer, and one when it no longer does", || {
                all_lost(lab, &keys, address)
            })?;
        step(
            "the switch falls into two: each half is served, and one owner when it is whole again",
            || two_halves(lab, &keys, address, &owner),
        )
    });
}

/// Drops multicast hello frames between the owner and one other node, and nothing else.
fn hellos_lost(lab: &Lab, keys: &HelloKeyRing, address: Ipv4Addr, owner: &str) -> Result<()> {
    let other = lab.nodes().into_iter().find(|node| node != owner).context("another node")?;
    let counts = || -> Result<(f64, f64)> {
        let all = |name: &str| {
            lab.nodes().iter().map(|node| metric(lab, node, name)).sum::<Result<f64>>()
        };
        Ok((
            metric(lab, &other, "ferrolb_speaker_suspicions_refuted_total")?,
            all("ferrolb_speaker_deaths_total")?,
        ))
    };
    let (refuted, deaths) = counts()?;
    let (owners, evidence) = FrameLog::of(lab, keys, || {
        let lose = |from: &str, to: &str| {
            let (kind, group) = (hello::ETHER_TYPE, hello::GROUP);
            format!(
                "iifname \"{from}\" oifname \"{to}\" ether type {kind:#x} ether daddr {group} drop"
            )
        };
        lab.set_drops(&[lose(owner, &other), lose(&other, owner)])?;
        let (mut wire, mut owners) = (SegmentSocket::open(lab)?, BTreeSet::new());
        wait::during(HELLOS_LOST, || {
            owners.append(&mut wire.replying(address)?);
            Ok(())
        })?;
        lab.set_drops(&[])?;
        Ok(owners)
    })?;
    let owners: Vec<_> = owners.into_iter().map(|mac| segment::host_name(lab, mac)).collect();
    let claims = evidence.claims(address);
    ensure!(
        owners == [owner] && claims.is_empty(),
        "{owners:?} replied, and there were claims: {claims:?}"
    );
    let (now_refuted, now_deaths) = counts()?;
    ensure!(now_refuted > refuted, "{other} suspected no node, so no hello frame was lost");
    ensure!(now_deaths == deaths, "{} nodes were detected as failed", now_deaths - deaths);
    print_measured(&format!(
        "hellos lost for {HELLOS_LOST:?}: {} suspicions, all refuted",
        now_refuted - refuted
    ));
    Ok(())
}

/// Drops all FerroLB frames, so that each speaker finds itself alone and replies. Returns the final
/// owner.
fn all_lost(lab: &Lab, keys: &HelloKeyRing, address: Ipv4Addr) -> Result<String> {
    let (healed, evidence) = FrameLog::of(lab, keys, || {
        lab.set_drops(&[format!("ether type {:#x} drop", hello::ETHER_TYPE)])?;
        let mut wire = SegmentSocket::open(lab)?;
        wait::until("all nodes answer", STATE_MAX, || {
            let answering = wire.replying(address)?.len();
            ensure!(answering == lab.nodes().len(), "{answering} nodes reply");
            Ok(Some(()))
        })?;
        wait::during(ALL_LOST, || wire.request(address))?;
        lab.set_drops(&[])?;
        let healed = wait::now();
        wait::during(HEALED, || wire.request(address))?;
        Ok(healed)
    })?;
    let owner = segment::owner(lab, address)?;
    let answers = evidence.announcements_and_replies(lab, address);
    let last =
        answers.iter().rfind(|said| said.host != owner).context("only one node ever replied")?;
    let late = last.at.saturating_duration_since(healed);
    print_measured(&format!(
        "all of ours lost, then no longer: the last answer of another than the owner came {late:?} later"
    ));
    ensure!(late <= HEAL_MAX, "{} replied {late:?} after the loss ended", last.host);
    Ok(owner)
}

/// Separates the client and the owner from the other nodes and the control plane's host, which acts
/// as a second client.
fn two_halves(lab: &Lab, keys: &HelloKeyRing, address: Ipv4Addr, owner: &str) -> Result<()> {
    let others = lab.nodes().into_iter().filter(|node| node != owner);
    let sides = [
        vec![CLIENT.to_owned(), owner.to_owned()],
        others.chain([CONTROL_PLANE.to_owned()]).collect(),
    ];
    let named = |side: &[String]| {
        side.iter().map(|host| format!("\"{host}\"")).collect::<Vec<_>>().join(", ")
    };
    let lose = |from: &[String], to: &[String]| {
        format!("iifname {{ {} }} oifname {{ {} }} drop", named(from), named(to))
    };
    let (second, evidence) = FrameLog::of(lab, keys, || {
        lab.set_drops(&[lose(&sides[0], &sides[1]), lose(&sides[1], &sides[0])])?;
        served(lab, CLIENT, address, owner)?;
        let second = wait::until("another owner on the other side", STATE_MAX, || {
            lab.http_get(CONTROL_PLANE, http(address), "/")?;
            let known = neighbor_entry(lab, CONTROL_PLANE, address)?
                .context("the client has no neighbor entry")?;
            Ok(lab
                .nodes()
                .into_iter()
                .find(|node| segment::mac_of(node).is_ok_and(|mac| mac == known)))
        })?;
        ensure!(second != owner, "{owner} serves the other side, too");
        served(lab, CONTROL_PLANE, address, &second)?;
        served(lab, CLIENT, address, owner)?;
        lab.set_drops(&[])?;
        let healed = wait::now();
        // No host sends requests meanwhile, so the clients can learn the owner only from
        // announcements.
        let mut seen = Vec::new();
        wait::during(HEALED, || {
            let known = [CLIENT, CONTROL_PLANE].map(|host| neighbor_entry(lab, host, address));
            let [first, other] = known;
            seen.push((healed.elapsed(), [first?, other?]));
            Ok(())
        })?;
        let now = segment::owner(lab, address)?;
        let owner = segment::mac_of(&now)?;
        let right = [Some(owner.clone()), Some(owner)];
        let wrong = seen.iter().rposition(|(_, known)| *known != right);
        let told = seen.get(wrong.map_or(0, |last| last + 1)).map(|(at, _)| *at);
        let told = told.with_context(|| {
            format!("{now} owns the address, but the clients' entries are {:?}", seen.last())
        })?;
        print_measured(&format!(
            "two halves, then one: both clients know the one owner after {told:?}"
        ));
        ensure!(told <= HEAL_MAX, "it took {told:?}");
        Ok(second)
    })?;
    let claims: BTreeSet<_> = evidence.claims(address).into_iter().map(|said| said.host).collect();
    ensure!(claims.contains(&second), "{second} served without a claim: {claims:?}");
    Ok(())
}

/// Waits until a client gets the page of the pod on this node.
fn served(lab: &Lab, client: &str, address: Ipv4Addr, node: &str) -> Result<()> {
    wait::until(&format!("{client} is served by {node}"), STATE_MAX, || {
        let pod = lab.http_get(client, http(address), "/")?.pod().context("no page")?;
        ensure!(
            pod == format!("web{node}") || (pod == "web" && node == "node1"),
            "{pod} served it"
        );
        Ok(Some(()))
    })
}

/// Returns the MAC address that a host's kernel has for an address.
fn neighbor_entry(lab: &Lab, host: &str, address: Ipv4Addr) -> Result<Option<String>> {
    let table = lab.exec(host, &["ip", "-json", "neigh", "show", "to", &address.to_string()])?;
    let table: Vec<Value> = serde_json::from_str(&table)?;
    Ok(table.iter().find_map(|entry| Some(entry["lladdr"].as_str()?.to_owned())))
}

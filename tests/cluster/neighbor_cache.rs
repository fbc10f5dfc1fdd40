//! Neighbor cache of a client. The owner must keep it correct: through a minute of revalidations,
//! each settled by one request to the owner alone, and through a move, which the cache follows at
//! once. Also the results of an operator's tools.

use crate::neighbor_watch::{NeighborChange, NeighborWatch, revalidate_soon};
use crate::node_failure::{PROBE_LENGTH, PROBE_STEP, all_forward_to};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services::{self, http, service};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::traffic::capture::{Capture, CapturedFrame, claimed_by};
use ferrolb_lab::traffic::probe::Transport;
use ferrolb_lab::{Lab, Options, ProbeReport, wait};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::Operation;
use ferrolb_proto::wire::ndp::{self, NdpKind};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
const BOTH: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];
/// Time in which the client revalidates its entries repeatedly.
const MINUTE: Duration = Duration::from_secs(60);
/// Minimum number of revalidations in that time: an entry is valid for 1.5 s at most.
const ROUNDS_MIN: usize = 30;
/// Maximum time from the new owner's first announcement until the client uses it.
const FOLLOWED_MAX: Duration = Duration::from_secs(1);
/// Maximum time until a kernel reports a multicast group: three times the second of RFC 3810
/// section 9.11.
const REPORTED_MAX: Duration = Duration::from_secs(3);
/// Offset of the ICMPv6 type in a frame without extension headers.
const ICMPV6_TYPE: usize = 14 + 40;
/// Type of an MLD version 2 report (RFC 3810 section 5.2).
const MLD_REPORT: u8 = 143;

#[test]
fn a_clients_neighbor_cache_stays_correct_and_follows_a_move() {
    run_scenario(&Options::named("neighbours"), |lab| {
        lab.start_ferrolb()?;
        step(
            "a Service of both families: each node reports the group of its IPv6 address",
            || reported(lab),
        )?;
        step("every node forwards to its pod", || {
            all_forward_to(lab, "web", |host| host.v4().into())?;
            all_forward_to(lab, "web", |host| host.v6().into())
        })?;
        let owner = segment::wait_owner(lab, V4)?;
        segment::wait_owner(lab, V6)?;
        step("a minute of traffic, with a cache that doubts every second", || minute(lab, &owner))?;
        let second = step("the owner is cordoned, and the cache follows", || moved(lab, &owner))?;
        step("the tools agree on who has it", || tools_agree(lab, &second))?;
        step("the Service is deleted, and the tools agree that nobody has it", || {
            services::delete(lab, "web")?;
            BOTH.into_iter().try_for_each(|address| segment::wait_unannounced(lab, address))?;
            let asked = lab.try_exec(CLIENT, &ndisc6(&V6.to_string()))?;
            ensure!(asked.status.code() == Some(2), "ndisc6: {asked:?}");
            let asked = lab.try_exec(CLIENT, &arping_twice(&V4.to_string()))?;
            ensure!(asked.status.code() == Some(0), "arping -D: {asked:?}");
            Ok(())
        })
    });
}

/// Creates the Service, TCP and UDP on port 80, and waits for each node's report of the group on
/// the client's segment.
fn reported(lab: &Lab) -> Result<()> {
    services::apply_pool_and_pod(lab, "node1")?;
    let mut wire = SegmentSocket::open(lab)?;
    let ports = ["TCP", "UDP"]
        .map(|protocol| json!({"name": protocol.to_lowercase(), "port": 80, "targetPort": 8080, "protocol": protocol}));
    lab.apply_objects(&[service(
        "web",
        json!({"ipFamilyPolicy": "RequireDualStack", "ports": ports}),
    )])?;
    services::wait_addresses(
        lab,
        "web",
        &BOTH.map(|address| address.to_string()).each_ref().map(String::as_str),
    )?;
    let (all, mut reporters) = (nodes(lab)?, BTreeSet::new());
    let done = wire.listen(REPORTED_MAX, |frame| {
        reporters
            .extend(mac_at(frame, 6).filter(|_| is_report(frame, ndp::solicited_node_group(V6))));
        (reporters == all).then_some(())
    })?;
    ensure!(done.is_some(), "only {reporters:?} have reported {}", ndp::solicited_node_group(V6));
    Ok(())
}

/// Returns whether a frame is an MLD version 2 report that names the group. An 8-byte hop-by-hop
/// options header precedes the message.
fn is_report(frame: &[u8], group: Ipv6Addr) -> bool {
    let message = frame.get(14 + 40 + 8..).unwrap_or_default();
    frame.get(12..14) == Some(&ndp::ETHER_TYPE.to_be_bytes())
        && message.first() == Some(&MLD_REPORT)
        && message.windows(16).any(|window| window == group.octets())
}

/// Sends a UDP datagram every 10 ms from the client to both addresses: UDP replies do not confirm a
/// neighbor entry.
fn minute(lab: &Lab, owner: &str) -> Result<()> {
    revalidate_soon(lab)?;
    for address in BOTH {
        lab.http_get(CLIENT, http(address), "/")?;
        segment::wait_neighbor_entry(lab, address, owner)?;
    }
    let (watch, capture) = (NeighborWatch::start(lab)?, Capture::start(lab)?);
    let reports = probed(lab, MINUTE, || Ok(()))?;
    let (changes, frames) = (watch.stop()?, capture.stop()?);
    for (address, report) in BOTH.into_iter().zip(reports) {
        let (rounds, slowest) =
            (rounds(&changes, address, owner)?, slowest_reply(&frames, address, owner)?);
        print_measured(&format!(
            "{address}: {rounds} rounds of STALE, PROBE and REACHABLE, slowest answer {slowest:?}, {} of {} datagrams lost",
            report.lost, report.sent
        ));
        ensure!(report.lost == 0, "datagrams were lost: {report:#?}");
    }
    other_frames(&frames, owner)
}

/// Counts the frames about the IPv6 address other than requests and replies, by ICMPv6 type. The
/// owner's kernel does not have the address, so it forwards a client's unicast solicitation as any
/// packet. It then sends a solicitation of its own, a redirect, and an unreachable message. The
/// client ignores them all, and no other host sends any.
fn other_frames(frames: &[CapturedFrame], owner: &str) -> Result<()> {
    let (mac, mut kinds) = (segment::mac_of(owner)?, BTreeMap::<u8, usize>::new());
    for seen in
        frames.iter().filter(|seen| seen.bytes.windows(16).any(|window| window == V6.octets()))
    {
        let source = seen.source().map(|mac| mac.to_string());
        let is_client = source == Some(Host::client().mac());
        if seen.bytes[12..14] == ndp::ETHER_TYPE.to_be_bytes()
            && !is_client
            && claimed_by(&seen.bytes, V6.into()).is_none()
        {
            ensure!(
                source.as_ref() == Some(&mac),
                "{source:?} sends a frame about {V6}: {seen:02x?}"
            );
            *kinds.entry(*seen.bytes.get(ICMPV6_TYPE).context("a type")?).or_default() += 1;
        }
    }
    print_measured(&format!("{V6}: the owner's kernel sent, by ICMPv6 type: {kinds:?}"));
    Ok(())
}

/// Probes both addresses by UDP for `length`, while `event` happens.
fn probed(
    lab: &Lab,
    length: Duration,
    event: impl FnOnce() -> Result<()>,
) -> Result<Vec<ProbeReport>> {
    let probings =
        BOTH.map(|address| lab.start_probe_by(Transport::Udp, http(address), length, PROBE_STEP));
    event()?;
    probings.into_iter().map(|probing| probing.finish()).collect()
}

/// Returns the number of revalidations of the client's entry. Fails if the entry failed or named
/// another host than the owner.
fn rounds(changes: &[NeighborChange], address: IpAddr, owner: &str) -> Result<usize> {
    let its = usable_changes(changes, address, &[segment::mac_of(owner)?])?;
    let states: Vec<&str> = its.iter().map(|change| change.state.as_str()).collect();
    let rounds =
        states.windows(3).filter(|states| *states == ["STALE", "PROBE", "REACHABLE"]).count();
    ensure!(rounds >= ROUNDS_MIN, "only {rounds} rounds in {MINUTE:?}: {states:?}");
    Ok(rounds)
}

/// Checks that each of the client's requests went to the owner alone and got a reply before the
/// next one, and that no other host announced the address. Returns the longest time until a reply.
fn slowest_reply(frames: &[CapturedFrame], address: IpAddr, owner: &str) -> Result<Duration> {
    let (mac, client) = (Some(segment::mac_of(owner)?), Some(Host::client().mac()));
    let (mut asked, mut took) = (None, Vec::new());
    for seen in frames {
        let to = mac_at(&seen.bytes, 0).map(|mac| mac.to_string());
        if is_request(seen, address) && seen.source().map(|mac| mac.to_string()) == client {
            ensure!(to == mac, "a request went to {to:?}: {seen:02x?}");
            ensure!(asked.replace(seen.at).is_none(), "no reply to the request before {seen:02x?}");
        } else if let Some(teller) = claimed_by(&seen.bytes, address) {
            ensure!(Some(teller.to_string()) == mac, "{teller} announces {address}: {seen:02x?}");
            if to == client {
                ensure!(is_reply(seen), "not a valid reply: {seen:02x?}");
                took.extend(asked.take().map(|asked| seen.at - asked));
            }
        }
    }
    ensure!(took.len() >= ROUNDS_MIN, "only {} requests got a reply", took.len());
    took.into_iter().max().context("a reply")
}

/// Returns whether a frame is a request for the address.
fn is_request(seen: &CapturedFrame, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => seen
            .arp()
            .is_some_and(|arp| arp.operation == Operation::Request && arp.target == address),
        IpAddr::V6(address) => {
            seen.ndp().is_some_and(|ndp| ndp.kind == NdpKind::Solicitation && ndp.target == address)
        }
    }
}

/// Returns whether a frame is a unicast reply that settles a request.
fn is_reply(seen: &CapturedFrame) -> bool {
    let replies = seen.arp().is_some_and(|arp| arp.operation == Operation::Reply);
    replies
        || seen.ndp().is_some_and(|ndp| {
            ndp.kind == NdpKind::Advertisement { solicited: true, overrides: true }
        })
}

/// Cordons the owner, and checks that the client's entries change with the new owner's announcement
/// and not by revalidation. Returns the new owner.
fn moved(lab: &Lab, owner: &str) -> Result<String> {
    let (watch, capture, start) = (NeighborWatch::start(lab)?, Capture::start(lab)?, wait::now());
    let reports = probed(lab, PROBE_LENGTH, || lab.kubectl(&["cordon", owner]).map(drop))?;
    let (changes, frames) = (watch.stop()?, capture.stop()?);
    let second = segment::wait_owner(lab, V4)?;
    let new = segment::mac_of(&second)?;
    // While only some nodes have seen the cordon, a third node may own the address for a moment.
    let nodes: Vec<String> =
        lab.nodes().iter().map(|node| segment::mac_of(node)).collect::<Result<_>>()?;
    ensure!(second != owner, "{owner} is cordoned and still owns the address");
    for (address, report) in BOTH.into_iter().zip(reports) {
        let by_new = |seen: &&CapturedFrame| {
            claimed_by(&seen.bytes, address).is_some_and(|mac| mac.to_string() == new)
        };
        let told = frames
            .iter()
            .find(by_new)
            .with_context(|| format!("{second} does not announce {address}"))?
            .at;
        let its = usable_changes(&changes, address, &nodes)?;
        let known = its.iter().rev().take_while(|change| change.mac.as_ref() == Some(&new)).last();
        let known =
            known.with_context(|| format!("the client's last entry is not {second}: {its:#?}"))?.at;
        let [told_ms, known_ms] = [told, known].map(|at| (at - start).as_millis());
        print_measured(&format!(
            "{address} moved: told {told_ms} ms after the cordon, known for good after {known_ms} ms, {} lost",
            report.lost
        ));
        ensure!(known.saturating_duration_since(told) < FOLLOWED_MAX, "it took too long: {its:#?}");
        ensure!(report.lost == 0, "datagrams were lost: {report:#?}");
    }
    Ok(second)
}

/// Returns the changes of the client's entry for an address. Fails if the entry was not usable at
/// any time, or had a MAC address other than these.
fn usable_changes<'a>(
    changes: &'a [NeighborChange],
    address: IpAddr,
    macs: &[String],
) -> Result<Vec<&'a NeighborChange>> {
    let its: Vec<&NeighborChange> =
        changes.iter().filter(|change| change.address == address).collect();
    let sound = |change: &&NeighborChange| {
        let known = change.mac.as_ref().is_some_and(|mac| macs.contains(mac));
        known && ["REACHABLE", "STALE", "DELAY", "PROBE"].contains(&change.state.as_str())
    };
    match its.iter().find(|change| !sound(change)) {
        Some(bad) => bail!("the entry was {bad:?} among {its:#?}"),
        None => Ok(its),
    }
}

/// Checks that each tool names the owner and no other host.
fn tools_agree(lab: &Lab, owner: &str) -> Result<()> {
    let mac = segment::mac_of(owner)?;
    let (v4, v6) = (V4.to_string(), V6.to_string());
    let said = lab.exec(CLIENT, &ndisc6(&v6))?;
    ensure!(said.trim().eq_ignore_ascii_case(&mac), "ndisc6 prints {said:?}, not {mac} alone");
    let said = lab.exec(CLIENT, &["arping", "-c", "3", "-w", "5", "-I", "eth0", &v4])?;
    let replies: Vec<_> = said.lines().filter(|line| line.contains("reply from")).collect();
    let by_owner = replies.iter().filter(|line| line.to_lowercase().contains(&mac)).count();
    ensure!(by_owner == 3 && replies.len() == 3, "arping prints {said}");
    let said = lab.try_exec(CLIENT, &arping_twice(&v4))?;
    ensure!(said.status.code() == Some(1), "arping -D finds no owner: {said:?}");
    Ok(())
}

/// Sends one solicitation and waits a second for all replies. Prints only their MAC addresses.
fn ndisc6(address: &str) -> [&str; 9] {
    ["ndisc6", "-m", "-n", "-q", "-r", "1", "-w1000", address, "eth0"]
}

/// Sends the probes of a host that is about to use the address (RFC 5227 section 2.1.1).
fn arping_twice(address: &str) -> [&str; 9] {
    ["arping", "-D", "-c", "2", "-w", "3", "-I", "eth0", address]
}

/// Returns the MAC addresses of the nodes.
fn nodes(lab: &Lab) -> Result<BTreeSet<Mac>> {
    lab.nodes()
        .iter()
        .map(|node| {
            Ok(SegmentSocket::open_on(lab, &Host::named(node).context("a node")?, "eth0")?.mac)
        })
        .collect()
}

/// Returns the MAC address at an offset of a frame.
fn mac_at(frame: &[u8], place: usize) -> Option<Mac> {
    Some(Mac(frame.get(place..place + 6)?.try_into().ok()?))
}

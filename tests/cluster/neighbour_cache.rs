//! A client's neighbour cache, which is what a node that answers has to keep right: a minute of doubts, each settled by one question to the
//! owner alone; a move, which it follows at once; and the tools that an operator asks with.

use crate::client_wire::{self, Wire};
use crate::neighbour_watch::{Change, Watch, doubt_soon};
use crate::node_death::{PROBE_LENGTH, PROBE_STEP, all_forward_to};
use crate::services::{self, http, service};
use crate::stage::{measured, play, step};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::arp::Operation;
use ferrolb_proto::wire::ndp::{self, Kind};
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::traffic::capture::{Capture, Seen, holder};
use ferrolb_tests::traffic::probe::Transport;
use ferrolb_tests::{Lab, Options, Report, wait};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
const BOTH: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(V6)];
/// How long the client doubts again and again.
const MINUTE: Duration = Duration::from_secs(60);
/// How often it does so in that time, at least: an entry is believed for 1.5 s at most.
const ROUNDS_MIN: usize = 30;
/// How soon after the new owner's first announcement the client must know it.
const FOLLOWED_MAX: Duration = Duration::from_secs(1);
/// A kernel reports a group within a second (RFC 3810 section 9.11), three times over.
const REPORTED_MAX: Duration = Duration::from_secs(3);
/// Where a frame without options says which ICMPv6 message it is.
const ICMPV6_TYPE: usize = 14 + 40;
/// A report of MLD version 2 (RFC 3810 section 5.2).
const MLD_REPORT: u8 = 143;

#[test]
fn a_clients_neighbour_cache_is_kept_right_and_follows_a_move() {
    play(&Options::named("neighbours"), |lab| {
        lab.start_ferrolb()?;
        step("a Service of both families: each node reports the group of its IPv6 address", || reported(lab))?;
        step("every node forwards to its pod", || {
            all_forward_to(lab, "web", |host| host.v4().into())?;
            all_forward_to(lab, "web", |host| host.v6().into())
        })?;
        let owner = client_wire::wait_owner(lab, V4)?;
        client_wire::wait_owner(lab, V6)?;
        step("a minute of traffic, with a cache that doubts every second", || minute(lab, &owner))?;
        let second = step("the owner is cordoned, and the cache follows", || moved(lab, &owner))?;
        step("the tools agree on who has it", || tools_agree(lab, &second))?;
        step("the Service is deleted, and the tools agree that nobody has it", || {
            services::delete(lab, "web")?;
            BOTH.into_iter().try_for_each(|address| client_wire::wait_silent(lab, address))?;
            let asked = lab.try_exec(CLIENT, &ndisc6(&V6.to_string()))?;
            ensure!(asked.status.code() == Some(2), "ndisc6: {asked:?}");
            let asked = lab.try_exec(CLIENT, &arping_twice(&V4.to_string()))?;
            ensure!(asked.status.code() == Some(0), "arping -D: {asked:?}");
            Ok(())
        })
    });
}

/// Makes the Service, TCP and UDP on port 80, and sees each node's report of the group on the client's wire.
fn reported(lab: &Lab) -> Result<()> {
    services::furnish(lab, "node1")?;
    let mut wire = Wire::open(lab)?;
    let ports = ["TCP", "UDP"]
        .map(|protocol| json!({"name": protocol.to_lowercase(), "port": 80, "targetPort": 8080, "protocol": protocol}));
    lab.apply_objects(&[service("web", json!({"ipFamilyPolicy": "RequireDualStack", "ports": ports}))])?;
    services::wait_addresses(lab, "web", &BOTH.map(|address| address.to_string()).each_ref().map(String::as_str))?;
    let (all, mut reporters) = (nodes(lab)?, BTreeSet::new());
    let done = wire.listen(REPORTED_MAX, |frame| {
        reporters.extend(mac_at(frame, 6).filter(|_| is_report(frame, ndp::group(V6))));
        (reporters == all).then_some(())
    })?;
    ensure!(done.is_some(), "only {reporters:?} have reported {}", ndp::group(V6));
    Ok(())
}

/// Whether a frame is a report of MLD version 2 that names the group. Before it comes a header of hop-by-hop options, 8 bytes long.
fn is_report(frame: &[u8], group: Ipv6Addr) -> bool {
    let message = frame.get(14 + 40 + 8..).unwrap_or_default();
    frame.get(12..14) == Some(&ndp::ETHER_TYPE.to_be_bytes())
        && message.first() == Some(&MLD_REPORT)
        && message.windows(16).any(|window| window == group.octets())
}

/// The client sends to both addresses what confirms no neighbour, a datagram every 10 ms.
fn minute(lab: &Lab, owner: &str) -> Result<()> {
    doubt_soon(lab)?;
    for address in BOTH {
        lab.http_get(CLIENT, http(address), "/")?;
        client_wire::wait_known(lab, address, owner)?;
    }
    let (watch, capture) = (Watch::start(lab)?, Capture::start(lab)?);
    let reports = probed(lab, MINUTE, || Ok(()))?;
    let (changes, frames) = (watch.stop()?, capture.stop()?);
    for (address, report) in BOTH.into_iter().zip(reports) {
        let (rounds, slowest) = (rounds(&changes, address, owner)?, questions(&frames, address, owner)?);
        measured(&format!(
            "{address}: {rounds} rounds of STALE, PROBE and REACHABLE, slowest answer {slowest:?}, {} of {} datagrams lost",
            report.lost, report.sent
        ));
        ensure!(report.lost == 0, "datagrams were lost: {report:#?}");
    }
    forwarded(&frames, owner)
}

/// What besides questions and answers was said of the IPv6 address, by the type of the ICMPv6 message. The owner's kernel does not know that
/// the address is its node's, and takes a client's unicast question for a packet to be forwarded: it asks the wire itself, redirects the
/// client, and tells it that nobody is there. The client heeds none of it; and nobody else says anything.
fn forwarded(frames: &[Seen], owner: &str) -> Result<()> {
    let (mac, mut kinds) = (client_wire::mac_of(owner)?, BTreeMap::<u8, usize>::new());
    for seen in frames.iter().filter(|seen| seen.bytes.windows(16).any(|window| window == V6.octets())) {
        let source = seen.source().map(|mac| mac.to_string());
        let is_client = source == Some(Host::client().mac());
        if seen.bytes[12..14] == ndp::ETHER_TYPE.to_be_bytes() && !is_client && holder(&seen.bytes, V6.into()).is_none()
        {
            ensure!(source.as_ref() == Some(&mac), "{source:?} speaks of {V6}: {seen:02x?}");
            *kinds.entry(*seen.bytes.get(ICMPV6_TYPE).context("a type")?).or_default() += 1;
        }
    }
    measured(&format!("{V6}: the owner's kernel sent, by ICMPv6 type: {kinds:?}"));
    Ok(())
}

/// Probes both addresses by UDP for so long, while `event` happens.
fn probed(lab: &Lab, length: Duration, event: impl FnOnce() -> Result<()>) -> Result<Vec<Report>> {
    let probings = BOTH.map(|address| lab.start_probe_by(Transport::Udp, http(address), length, PROBE_STEP));
    event()?;
    probings.into_iter().map(|probing| probing.finish()).collect()
}

/// How often the client's entry was doubted and confirmed. It never failed, and was always the owner.
fn rounds(changes: &[Change], address: IpAddr, owner: &str) -> Result<usize> {
    let its = sound(changes, address, &[client_wire::mac_of(owner)?])?;
    let states: Vec<&str> = its.iter().map(|change| change.state.as_str()).collect();
    let rounds = states.windows(3).filter(|states| *states == ["STALE", "PROBE", "REACHABLE"]).count();
    ensure!(rounds >= ROUNDS_MIN, "only {rounds} rounds in {MINUTE:?}: {states:?}");
    Ok(rounds)
}

/// Each of the client's questions went to the owner alone, was answered by it before the next, and nobody else has told of the address. How
/// long the slowest answer took.
fn questions(frames: &[Seen], address: IpAddr, owner: &str) -> Result<Duration> {
    let (mac, client) = (Some(client_wire::mac_of(owner)?), Some(Host::client().mac()));
    let (mut asked, mut took) = (None, Vec::new());
    for seen in frames {
        let to = mac_at(&seen.bytes, 0).map(|mac| mac.to_string());
        if asks(seen, address) && seen.source().map(|mac| mac.to_string()) == client {
            ensure!(to == mac, "a question went to {to:?}: {seen:02x?}");
            ensure!(asked.replace(seen.at).is_none(), "the question before {seen:02x?} was not answered");
        } else if let Some(teller) = holder(&seen.bytes, address) {
            ensure!(Some(teller.to_string()) == mac, "{teller} says that it has {address}: {seen:02x?}");
            if to == client {
                ensure!(answers(seen), "no proper answer: {seen:02x?}");
                took.extend(asked.take().map(|asked| seen.at - asked));
            }
        }
    }
    ensure!(took.len() >= ROUNDS_MIN, "only {} questions were answered", took.len());
    took.into_iter().max().context("an answer")
}

/// A question who has the address.
fn asks(seen: &Seen, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            seen.arp().is_some_and(|arp| arp.operation == Operation::Request && arp.target == address)
        }
        IpAddr::V6(address) => seen.ndp().is_some_and(|ndp| ndp.kind == Kind::Solicitation && ndp.target == address),
    }
}

/// An answer to one host, that settles its question.
fn answers(seen: &Seen) -> bool {
    let replies = seen.arp().is_some_and(|arp| arp.operation == Operation::Reply);
    replies || seen.ndp().is_some_and(|ndp| ndp.kind == Kind::Advertisement { solicited: true, overrides: true })
}

/// Cordons the owner; who has both addresses after that. The client's entries change with the new owner's word, not by their own doubts.
fn moved(lab: &Lab, owner: &str) -> Result<String> {
    let (watch, capture, start) = (Watch::start(lab)?, Capture::start(lab)?, wait::now());
    let reports = probed(lab, PROBE_LENGTH, || lab.kubectl(&["cordon", owner]).map(drop))?;
    let (changes, frames) = (watch.stop()?, capture.stop()?);
    let second = client_wire::wait_owner(lab, V4)?;
    let new = client_wire::mac_of(&second)?;
    // While one node knows of the cordon and another does not, a third may have it for a moment.
    let nodes: Vec<String> = lab.nodes().iter().map(|node| client_wire::mac_of(node)).collect::<Result<_>>()?;
    ensure!(second != owner, "{owner} is cordoned and answers");
    for (address, report) in BOTH.into_iter().zip(reports) {
        let by_new = |seen: &&Seen| holder(&seen.bytes, address).is_some_and(|mac| mac.to_string() == new);
        let told = frames.iter().find(by_new).with_context(|| format!("{second} does not tell of {address}"))?.at;
        let its = sound(&changes, address, &nodes)?;
        let known = its.iter().rev().take_while(|change| change.mac.as_ref() == Some(&new)).last();
        let known = known.with_context(|| format!("the client does not end at {second}: {its:#?}"))?.at;
        let [told_ms, known_ms] = [told, known].map(|at| (at - start).as_millis());
        measured(&format!(
            "{address} moved: told {told_ms} ms after the cordon, known for good after {known_ms} ms, {} lost",
            report.lost
        ));
        ensure!(known.saturating_duration_since(told) < FOLLOWED_MAX, "it took too long: {its:#?}");
        ensure!(report.lost == 0, "datagrams were lost: {report:#?}");
    }
    Ok(second)
}

/// The changes of the client's entry for an address. It was always usable, and at one of these hardware addresses.
fn sound<'a>(changes: &'a [Change], address: IpAddr, macs: &[String]) -> Result<Vec<&'a Change>> {
    let its: Vec<&Change> = changes.iter().filter(|change| change.address == address).collect();
    let sound = |change: &&Change| {
        let known = change.mac.as_ref().is_some_and(|mac| macs.contains(mac));
        known && ["REACHABLE", "STALE", "DELAY", "PROBE"].contains(&change.state.as_str())
    };
    match its.iter().find(|change| !sound(change)) {
        Some(bad) => bail!("the entry was {bad:?} among {its:#?}"),
        None => Ok(its),
    }
}

/// Each names the owner, and no other.
fn tools_agree(lab: &Lab, owner: &str) -> Result<()> {
    let mac = client_wire::mac_of(owner)?;
    let (v4, v6) = (V4.to_string(), V6.to_string());
    let said = lab.exec(CLIENT, &ndisc6(&v6))?;
    ensure!(said.trim().eq_ignore_ascii_case(&mac), "ndisc6 says {said:?}, not {mac} alone");
    let said = lab.exec(CLIENT, &["arping", "-c", "3", "-w", "5", "-I", "eth0", &v4])?;
    let replies: Vec<_> = said.lines().filter(|line| line.contains("reply from")).collect();
    let by_owner = replies.iter().filter(|line| line.to_lowercase().contains(&mac)).count();
    ensure!(by_owner == 3 && replies.len() == 3, "arping says {said}");
    let said = lab.try_exec(CLIENT, &arping_twice(&v4))?;
    ensure!(said.status.code() == Some(1), "arping -D finds that nobody has it: {said:?}");
    Ok(())
}

/// Asks once, and waits a second for all that answer; prints their hardware addresses alone.
fn ndisc6(address: &str) -> [&str; 9] {
    ["ndisc6", "-m", "-n", "-q", "-r", "1", "-w1000", address, "eth0"]
}

/// Asks as one that wants to have the address (RFC 5227 section 2.1.1).
fn arping_twice(address: &str) -> [&str; 9] {
    ["arping", "-D", "-c", "2", "-w", "3", "-I", "eth0", address]
}

/// The hardware addresses of the nodes.
fn nodes(lab: &Lab) -> Result<BTreeSet<Mac>> {
    lab.nodes().iter().map(|node| Ok(Wire::open_on(lab, &Host::named(node).context("a node")?, "eth0")?.mac)).collect()
}

/// The hardware address at a place of a frame.
fn mac_at(frame: &[u8], place: usize) -> Option<Mac> {
    Some(Mac(frame.get(place..place + 6)?.try_into().ok()?))
}

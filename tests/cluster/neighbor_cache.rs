//! Neighbor cache of a client: the entry of an address stays correct while the
//! client revalidates it by one request to the owner at a time. After a move, the entry changes at
//! once. The test also checks the output of `arping` and `ndisc6`.

use crate::neighbor_watch::{NeighborChange, NeighborWatch, revalidate_soon};
use crate::node_failure::{PROBE_INTERVAL, PROBE_TIME, wait_all_forward_to};
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

const ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200);
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(ADDRESS_V4), IpAddr::V6(ADDRESS_V6)];
/// Time for which the test observes the client's revalidations of its entries.
const REVALIDATION_TIME: Duration = Duration::from_secs(20);
/// Minimum number of revalidations in [`REVALIDATION_TIME`]: an entry is reachable for 1.5 s at
/// most.
const REVALIDATIONS_MIN: usize = 10;
/// Maximum time from the new owner's first announcement until the client's entry has its MAC.
const FOLLOWED_MAX: Duration = Duration::from_secs(1);
/// Maximum time until the kernel of each node has sent its MLD report for a multicast group: three
/// times the interval of 1 s in RFC 3810 section 9.11.
const REPORTED_MAX: Duration = Duration::from_secs(3);
/// Offset of the ICMPv6 type in a frame without extension headers.
const ICMPV6_TYPE: usize = 14 + 40;
/// Type of an MLD version 2 report (RFC 3810 section 5.2).
const MLD_REPORT: u8 = 143;

#[test]
fn a_clients_neighbor_cache_stays_correct_and_follows_a_move() {
    run_scenario(&Options::named("neighborcache"), |lab| {
        lab.start_ferrolb()?;
        step(
            "each node sends an MLD report for the solicited-node group of the Service's IPv6 address",
            || wait_group_reports(lab),
        )?;
        step("every node forwards to the pod of the Service", || {
            wait_all_forward_to(lab, "web", |host| host.v4().into())?;
            wait_all_forward_to(lab, "web", |host| host.v6().into())
        })?;
        let owner = segment::wait_owner(lab, ADDRESS_V4)?;
        segment::wait_owner(lab, ADDRESS_V6)?;
        step("the client sends traffic and revalidates its entries every second", || {
            check_revalidations(lab, &owner)
        })?;
        let second = step(
            "the owner is cordoned, and the client's entries change to the new owner",
            || check_move(lab, &owner),
        )?;
        step("ndisc6 and arping name the owner only", || check_tools(lab, &second))?;
        step("the Service is deleted, and ndisc6 and arping find no owner", || {
            services::delete(lab, "web")?;
            ADDRESSES
                .into_iter()
                .try_for_each(|address| segment::wait_unannounced(lab, address))?;
            let output = lab.try_exec(CLIENT, &ndisc6_command(&ADDRESS_V6.to_string()))?;
            ensure!(output.status.code() == Some(2), "ndisc6 finds an owner: {output:?}");
            let output =
                lab.try_exec(CLIENT, &arping_duplicate_detection(&ADDRESS_V4.to_string()))?;
            ensure!(output.status.code() == Some(0), "arping -D finds an owner: {output:?}");
            Ok(())
        })
    });
}

/// Creates the Service, with port 80 for TCP and UDP, and waits until the client has received each
/// node's report of the solicited-node group.
fn wait_group_reports(lab: &Lab) -> Result<()> {
    services::apply_pool_and_pod(lab, "node1")?;
    let mut socket = SegmentSocket::open(lab)?;
    let ports = ["TCP", "UDP"]
        .map(|protocol| json!({"name": protocol.to_lowercase(), "port": 80, "targetPort": 8080, "protocol": protocol}));
    lab.apply_objects(&[service(
        "web",
        json!({"ipFamilyPolicy": "RequireDualStack", "ports": ports}),
    )])?;
    services::wait_addresses(
        lab,
        "web",
        &ADDRESSES.map(|address| address.to_string()).each_ref().map(String::as_str),
    )?;
    let (all, mut reporters) = (node_macs(lab)?, BTreeSet::new());
    let complete = socket.listen(REPORTED_MAX, |frame| {
        reporters.extend(
            mac_at(frame, 6)
                .filter(|_| is_mld_report(frame, ndp::solicited_node_group(ADDRESS_V6))),
        );
        (reporters == all).then_some(())
    })?;
    ensure!(
        complete.is_some(),
        "only {reporters:?} have reported {}",
        ndp::solicited_node_group(ADDRESS_V6)
    );
    Ok(())
}

/// Returns whether a frame is an MLD version 2 report that names the group. Between the IPv6 header
/// and the report is a hop-by-hop options header of 8 bytes.
fn is_mld_report(frame: &[u8], group: Ipv6Addr) -> bool {
    let message = frame.get(14 + 40 + 8..).unwrap_or_default();
    frame.get(12..14) == Some(&ndp::ETHER_TYPE.to_be_bytes())
        && message.first() == Some(&MLD_REPORT)
        && message.windows(16).any(|window| window == group.octets())
}

/// Checks the client's entries while the client sends UDP datagrams to both addresses.
/// UDP replies do not confirm a neighbor entry, so the client must revalidate it.
fn check_revalidations(lab: &Lab, owner: &str) -> Result<()> {
    revalidate_soon(lab)?;
    for address in ADDRESSES {
        lab.http_get(CLIENT, http(address), "/")?;
        segment::wait_neighbor_entry(lab, address, owner)?;
    }
    let (watch, capture) = (NeighborWatch::start(lab)?, Capture::start(lab)?);
    let reports = probed(lab, REVALIDATION_TIME, || Ok(()))?;
    let (changes, frames) = (watch.stop()?, capture.stop()?);
    for (address, report) in ADDRESSES.into_iter().zip(reports) {
        let (revalidations, slowest) =
            (revalidations(&changes, address, owner)?, slowest_reply(&frames, address, owner)?);
        print_measured(&format!(
            "{address}: {revalidations} revalidations (STALE, PROBE, REACHABLE), slowest reply {slowest:?}, {} of {} datagrams lost",
            report.lost, report.sent
        ));
        ensure!(report.lost == 0, "datagrams were lost: {report:#?}");
    }
    print_other_frames(&frames, owner)
}

/// Prints the number of frames that the owner's kernel sends about the IPv6 address, by ICMPv6
/// type. The kernel does not have the address, so it forwards a client's unicast solicitation like
/// any packet. It then sends a solicitation, a redirect, and an unreachable message, which the
/// client ignores. Fails if another host sends such a frame.
fn print_other_frames(frames: &[CapturedFrame], owner: &str) -> Result<()> {
    let (mac, mut kinds) = (segment::mac_of(owner)?, BTreeMap::<u8, usize>::new());
    for seen in frames
        .iter()
        .filter(|seen| seen.bytes.windows(16).any(|window| window == ADDRESS_V6.octets()))
    {
        let source = seen.source().map(|mac| mac.to_string());
        let is_client = source == Some(Host::client().mac());
        if seen.bytes[12..14] == ndp::ETHER_TYPE.to_be_bytes()
            && !is_client
            && claimed_by(&seen.bytes, ADDRESS_V6.into()).is_none()
        {
            ensure!(
                source.as_ref() == Some(&mac),
                "{source:?} sends a frame about {ADDRESS_V6}: {seen:02x?}"
            );
            *kinds
                .entry(*seen.bytes.get(ICMPV6_TYPE).context("the frame has no ICMPv6 type")?)
                .or_default() += 1;
        }
    }
    print_measured(&format!("{ADDRESS_V6}: the owner's kernel sent, by ICMPv6 type: {kinds:?}"));
    Ok(())
}

/// Sends UDP datagrams to both addresses for `length` while `work` runs. Returns the results.
fn probed(
    lab: &Lab,
    length: Duration,
    work: impl FnOnce() -> Result<()>,
) -> Result<Vec<ProbeReport>> {
    let probings = ADDRESSES
        .map(|address| lab.start_probe_over(Transport::Udp, http(address), length, PROBE_INTERVAL));
    work()?;
    probings.into_iter().map(|probing| probing.finish()).collect()
}

/// Returns the number of revalidations of the client's entry. Fails if the entry was ever unusable,
/// or had the MAC of a host other than the owner.
fn revalidations(changes: &[NeighborChange], address: IpAddr, owner: &str) -> Result<usize> {
    let entry_changes = usable_changes(changes, address, &[segment::mac_of(owner)?])?;
    let states: Vec<&str> = entry_changes.iter().map(|change| change.state.as_str()).collect();
    let revalidations =
        states.windows(3).filter(|states| *states == ["STALE", "PROBE", "REACHABLE"]).count();
    ensure!(
        revalidations >= REVALIDATIONS_MIN,
        "only {revalidations} revalidations in {REVALIDATION_TIME:?}: {states:?}"
    );
    Ok(revalidations)
}

/// Checks that each request of the client went to the owner alone and got a reply before the next
/// request, and that no other host announced the address. Returns the longest time until a reply.
fn slowest_reply(frames: &[CapturedFrame], address: IpAddr, owner: &str) -> Result<Duration> {
    let (mac, client) = (Some(segment::mac_of(owner)?), Some(Host::client().mac()));
    let (mut requested_at, mut times) = (None, Vec::new());
    for seen in frames {
        let to = mac_at(&seen.bytes, 0).map(|mac| mac.to_string());
        if is_request(seen, address) && seen.source().map(|mac| mac.to_string()) == client {
            ensure!(to == mac, "a request went to {to:?}: {seen:02x?}");
            ensure!(
                requested_at.replace(seen.at).is_none(),
                "no reply to the request before {seen:02x?}"
            );
        } else if let Some(announcer) = claimed_by(&seen.bytes, address) {
            ensure!(
                Some(announcer.to_string()) == mac,
                "{announcer} announces {address}: {seen:02x?}"
            );
            if to == client {
                ensure!(is_reply(seen), "the owner sends an invalid reply: {seen:02x?}");
                times.extend(requested_at.take().map(|requested_at| seen.at - requested_at));
            }
        }
    }
    ensure!(times.len() >= REVALIDATIONS_MIN, "only {} requests got a reply", times.len());
    times.into_iter().max().context("no request got a reply")
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

/// Returns whether a frame is an ARP reply or a solicited advertisement with the override flag.
fn is_reply(seen: &CapturedFrame) -> bool {
    let replies = seen.arp().is_some_and(|arp| arp.operation == Operation::Reply);
    replies
        || seen.ndp().is_some_and(|ndp| {
            ndp.kind == NdpKind::Advertisement { solicited: true, overrides: true }
        })
}

/// Cordons the owner, and checks that the client's entries change with the new owner's announcement
/// and not by revalidation. Returns the new owner.
fn check_move(lab: &Lab, owner: &str) -> Result<String> {
    let (watch, capture, start) = (NeighborWatch::start(lab)?, Capture::start(lab)?, wait::now());
    let reports = probed(lab, PROBE_TIME, || lab.kubectl(&["cordon", owner]).map(drop))?;
    let (changes, frames) = (watch.stop()?, capture.stop()?);
    let second = segment::wait_owner(lab, ADDRESS_V4)?;
    let new_mac = segment::mac_of(&second)?;
    // While only some nodes have seen the cordon, a third node may own the address for a moment.
    let nodes: Vec<String> =
        lab.nodes().iter().map(|node| segment::mac_of(node)).collect::<Result<_>>()?;
    ensure!(second != owner, "{owner} is cordoned and still owns the address");
    for (address, report) in ADDRESSES.into_iter().zip(reports) {
        let is_by_new_owner = |seen: &&CapturedFrame| {
            claimed_by(&seen.bytes, address).is_some_and(|mac| mac.to_string() == new_mac)
        };
        let announced = frames
            .iter()
            .find(is_by_new_owner)
            .with_context(|| format!("{second} does not announce {address}"))?
            .at;
        let entry_changes = usable_changes(&changes, address, &nodes)?;
        let known = entry_changes
            .iter()
            .rev()
            .take_while(|change| change.mac.as_ref() == Some(&new_mac))
            .last();
        let known = known
            .with_context(|| {
                format!("the client's last entry is not {second}: {entry_changes:#?}")
            })?
            .at;
        let [announced_ms, known_ms] = [announced, known].map(|at| (at - start).as_millis());
        print_measured(&format!(
            "{address} moved: announced {announced_ms} ms after the cordon, final entry after {known_ms} ms, {} datagrams lost",
            report.lost
        ));
        ensure!(
            known.saturating_duration_since(announced) < FOLLOWED_MAX,
            "the entry changed too late: {entry_changes:#?}"
        );
        ensure!(report.lost == 0, "datagrams were lost: {report:#?}");
    }
    Ok(second)
}

/// Returns the changes of the client's entry for an address. Fails if the entry was ever unusable,
/// or had a MAC address that is not in `macs`.
fn usable_changes<'a>(
    changes: &'a [NeighborChange],
    address: IpAddr,
    macs: &[String],
) -> Result<Vec<&'a NeighborChange>> {
    let entry_changes: Vec<&NeighborChange> =
        changes.iter().filter(|change| change.address == address).collect();
    let usable = |change: &&NeighborChange| {
        let known = change.mac.as_ref().is_some_and(|mac| macs.contains(mac));
        known && ["REACHABLE", "STALE", "DELAY", "PROBE"].contains(&change.state.as_str())
    };
    match entry_changes.iter().find(|change| !usable(change)) {
        Some(bad) => bail!("the entry was {bad:?} among {entry_changes:#?}"),
        None => Ok(entry_changes),
    }
}

/// Checks that `ndisc6` and `arping` name the owner and no other host.
fn check_tools(lab: &Lab, owner: &str) -> Result<()> {
    let mac = segment::mac_of(owner)?;
    let (v4, v6) = (ADDRESS_V4.to_string(), ADDRESS_V6.to_string());
    let output = lab.exec(CLIENT, &ndisc6_command(&v6))?;
    // On a busy machine, ndisc6 repeats its solicitation before the reply arrives.
    let is_owner = |line: &str| line.eq_ignore_ascii_case(&mac);
    ensure!(
        !output.trim().is_empty() && output.trim().lines().all(is_owner),
        "ndisc6 prints {output:?}, not {mac} alone"
    );
    let output = lab.exec(CLIENT, &["arping", "-c", "3", "-w", "5", "-I", "eth0", &v4])?;
    let replies: Vec<_> = output.lines().filter(|line| line.contains("reply from")).collect();
    let by_owner = replies.iter().filter(|line| line.to_lowercase().contains(&mac)).count();
    ensure!(by_owner == 3 && replies.len() == 3, "arping prints {output}");
    let output = lab.try_exec(CLIENT, &arping_duplicate_detection(&v4))?;
    ensure!(output.status.code() == Some(1), "arping -D does not find the owner: {output:?}");
    Ok(())
}

/// Returns the command that sends one solicitation, waits a second for all replies, and prints only
/// their MAC addresses.
fn ndisc6_command(address: &str) -> [&str; 9] {
    ["ndisc6", "-m", "-n", "-q", "-r", "1", "-w1000", address, "eth0"]
}

/// Returns the command that sends the ARP probes of duplicate address detection (RFC 5227 section
/// 2.1.1).
fn arping_duplicate_detection(address: &str) -> [&str; 9] {
    ["arping", "-D", "-c", "2", "-w", "3", "-I", "eth0", address]
}

/// Returns the MAC addresses of the nodes.
fn node_macs(lab: &Lab) -> Result<BTreeSet<Mac>> {
    lab.nodes()
        .iter()
        .map(|node| {
            Ok(SegmentSocket::open_on(
                lab,
                &Host::named(node).context("the node is not a host of the lab")?,
                "eth0",
            )?
            .mac)
        })
        .collect()
}

/// Returns the MAC address at an offset of a frame.
fn mac_at(frame: &[u8], place: usize) -> Option<Mac> {
    Some(Mac(frame.get(place..place + 6)?.try_into().ok()?))
}

//! Frames of a foreign host: forged, broken and replayed frames of the ownership protocol, and
//! broken and false ARP frames. The speakers ignore all of them and count those of the ownership
//! protocol, and the owner continues to reply.

use crate::metrics::metric;
use crate::node_failure::{GAP_MAX, PROBE_INTERVAL};
use crate::pools::STATE_MAX;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services::{self, http};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{Host, node_index};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::wire::hello::{
    self, Body, Claim, ClaimRank, ClaimSetSummary, Flags, Frame, HelloKey, KEY_LENGTH,
};
use ferrolb_proto::wire::{ETHERNET_HEADER_LENGTH, Mac, arp};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The longest frame of an Ethernet interface, header included, in bytes.
const FRAME_LENGTH_MAX: usize = ETHERNET_HEADER_LENGTH + 1500;
/// Time for which the client connects while the foreign host sends frames.
const PROBE_LENGTH: Duration = Duration::from_secs(6);
/// Maximum number of lines that the speakers log while the foreign host sends frames: they may log
/// a summary, but not each frame.
const LOG_LINES_MAX: usize = 5;

#[test]
fn hostile_frames_are_counted_and_change_no_owner() {
    run_scenario(&Options::named("hostile"), |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node1")?;
        let address = services::serve(lab, "web")?;
        let owner = segment::wait_owner(lab, address)?;
        let mut socket = SegmentSocket::open(lab)?;
        let real = step("a hello frame of another speaker is received", || {
            receive_hello(&mut socket, &owner)
        })?;
        let lines = log_lines(lab);
        let probing = lab.start_probe(http(address), PROBE_LENGTH, PROBE_INTERVAL);
        for (attack, reason, frames) in hello_attacks(socket.mac, address, &real) {
            step(attack, || {
                let before = dropped(lab, &owner, reason)?;
                frames.iter().try_for_each(|frame| socket.send(frame))?;
                wait::until("all frames are counted", STATE_MAX, || {
                    let counted = dropped(lab, &owner, reason)? - before;
                    ensure!(
                        counted >= frames.len() as f64,
                        "{counted} of {} frames are counted",
                        frames.len()
                    );
                    Ok(Some(()))
                })?;
                check_owner_unchanged(lab, address, &owner)
            })?;
        }
        for (attack, frames) in arp_attacks(socket.mac, address) {
            step(attack, || {
                frames.iter().try_for_each(|frame| socket.send(frame))?;
                check_owner_unchanged(lab, address, &owner)
            })?;
        }
        step("the client saw no outage, and the speakers logged no line per frame", || {
            let report = probing.finish()?;
            print_measured(&format!(
                "hostile frames: {} of {} connections lost, longest gap {:.0} ms",
                report.lost, report.sent, report.longest_gap_ms
            ));
            ensure!(
                report.longest_gap_ms < GAP_MAX.as_secs_f64() * 1000.0,
                "the gap is too long: {report:#?}"
            );
            let logged = log_lines(lab) - lines;
            ensure!(logged <= LOG_LINES_MAX, "the speakers logged {logged} lines");
            Ok(())
        })
    });
}

/// Waits for a hello frame of a speaker other than the owner's.
fn receive_hello(socket: &mut SegmentSocket, owner: &str) -> Result<Vec<u8>> {
    let (ether_type, owner) = (
        hello::ETHER_TYPE.to_be_bytes(),
        Host::node(node_index(owner).context("the owner is no node")?).mac(),
    );
    let found = socket.listen(STATE_MAX, |frame| {
        let source = Mac(frame.get(6..12)?.try_into().ok()?).to_string();
        let hello = frame.starts_with(&hello::GROUP.0) && frame[12..14] == ether_type;
        (hello && source != owner).then(|| frame.to_vec())
    })?;
    found.context("no other speaker sends hello frames")
}

/// A group of invalid hello frames: the fault, the drop reason under which the speaker must count
/// all of them (`None`: any reason), and the frames.
type FrameAttack = (&'static str, Option<&'static str>, Vec<Vec<u8>>);

/// Returns hello frames that a foreign host can send after it has received a `real` frame.
fn hello_attacks(mac: Mac, address: Ipv4Addr, real: &[u8]) -> Vec<FrameAttack> {
    let forged = claim(mac, address);
    // A foreign host can copy the key ID, which is not encrypted. The key ID follows the Ethernet
    // header, the version, the kind and the flags.
    let id = ETHERNET_HEADER_LENGTH + 4..ETHERNET_HEADER_LENGTH + 8;
    let mut unsigned = forged.clone();
    unsigned[id.clone()].copy_from_slice(&real[id]);
    let flip = |at: usize| {
        let mut frame = real.to_vec();
        frame[at] ^= 0x55;
        frame
    };
    let mut header = hello::GROUP.0.to_vec();
    header.extend(mac.0);
    header.extend(hello::ETHER_TYPE.to_be_bytes());
    vec![
        (
            "a claim of the address, signed with a foreign key",
            Some("foreign_key"),
            vec![forged; 50],
        ),
        ("an unsigned claim of the address", Some("signature"), vec![unsigned; 50]),
        (
            "a real frame with one changed byte, for each byte",
            None,
            (ETHERNET_HEADER_LENGTH..real.len()).map(flip).collect(),
        ),
        (
            "a real frame, truncated to each length",
            None,
            (ETHERNET_HEADER_LENGTH..real.len()).map(|end| real[..end].to_vec()).collect(),
        ),
        ("a real frame, replayed 50 times", Some("stale"), vec![real.to_vec(); 50]),
        (
            "random bytes of every length",
            None,
            (ETHERNET_HEADER_LENGTH..=FRAME_LENGTH_MAX)
                .map(|length| random_frame(&header, length))
                .collect(),
        ),
    ]
}

/// Returns a well-formed claim of the address by a node that does not exist.
fn claim(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    const EPOCH: u64 = u64::MAX;
    let (address, rank) = (IpAddr::V4(address), ClaimRank::default());
    let frame = Frame {
        node: "unknown".into(),
        epoch: EPOCH,
        clock: 1,
        claim_set: ClaimSetSummary::new(EPOCH, 1, [(address, rank)]),
        interval: Duration::from_millis(50),
        detection_time: None,
        flags: Flags::default(),
        body: Body::Claim(vec![Claim { address, rank, preempt_delay: Duration::ZERO }]),
    };
    frame.encode(mac, None, &HelloKey::new([9; KEY_LENGTH]))
}

/// Returns broken and false ARP frames: the fault, and the frames.
fn arp_attacks(mac: Mac, address: Ipv4Addr) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let request_frame = arp::request(mac, Ipv4Addr::UNSPECIFIED, address);
    let modified = |at: usize, byte: u8| {
        let mut frame = request_frame.to_vec();
        frame[at] = byte;
        frame
    };
    let false_frames = [
        arp::gratuitous_request(mac, address),
        arp::gratuitous_reply(mac, address),
        arp::reply(mac, address, Mac::BROADCAST, address),
        arp::gratuitous_reply(Mac::BROADCAST, address),
        arp::gratuitous_reply(Mac::ZERO, address),
    ];
    vec![
        (
            "ARP requests, truncated to each length",
            (ETHERNET_HEADER_LENGTH..request_frame.len())
                .map(|end| request_frame[..end].to_vec())
                .collect(),
        ),
        (
            "ARP requests with other hardware types, protocols, lengths and operations",
            (14..22).flat_map(|at| [0, 9, 255].map(|byte| modified(at, byte))).collect(),
        ),
        (
            "random bytes of every length with the EtherType of ARP",
            (ETHERNET_HEADER_LENGTH..=FRAME_LENGTH_MAX)
                .map(|length| random_frame(&request_frame[..ETHERNET_HEADER_LENGTH], length))
                .collect(),
        ),
        (
            "ARP announcements and replies with the MAC of a foreign host",
            false_frames.iter().flat_map(|frame| vec![frame.to_vec(); 20]).collect(),
        ),
    ]
}

/// Returns an Ethernet header followed by random bytes, the same in every run (xorshift32, seeded
/// with the length).
fn random_frame(header: &[u8], length: usize) -> Vec<u8> {
    let mut state = 2_463_534_242_u32 ^ u32::try_from(length).unwrap_or_default();
    let mut frame = header.to_vec();
    frame.resize_with(length, || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    });
    frame
}

/// Returns the number of frames that the speaker of a node has dropped, for a reason or in total.
fn dropped(lab: &Lab, node: &str, reason: Option<&str>) -> Result<f64> {
    let name = "ferrolb_speaker_frames_dropped_total".to_owned();
    metric(
        lab,
        node,
        &reason
            .map_or(name.clone(), |reason| format!("{name}{{link=\"eth0\",reason=\"{reason}\"}}")),
    )
}

/// Checks that the owner still announces the address, and that no other speaker reports an owned
/// address.
fn check_owner_unchanged(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<()> {
    let now = segment::owner(lab, address)?;
    ensure!(now == owner, "the address moved from {owner} to {now}");
    for node in lab.nodes() {
        let (owned, expect) = (
            metric(lab, &node, "ferrolb_speaker_owned_addresses")?,
            f64::from(u8::from(node == owner)),
        );
        ensure!(owned == expect, "{node} owns {owned} addresses, not {expect}");
    }
    Ok(())
}

/// Returns the number of lines in the logs of all speakers.
fn log_lines(lab: &Lab) -> usize {
    lab.nodes().iter().map(|node| lab.logs(&format!("speaker-{node}")).lines().count()).sum()
}

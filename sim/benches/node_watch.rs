//! Measures the cost of node failure detection in clusters of 3, 100 and 1,000 nodes: for one
//! speaker, and for the controller.
//!
//! - The ring: time to compute it, after a change of the set of Nodes.
//! - One speaker: datagrams per second, and the share of a processor for its challenges, its
//!   replies to others, and their signatures. The cost of the kernel is not included.
//! - A failed rack of a twenty-fifth of all nodes: the number of speakers that report it, and the
//!   time of the controller to compute the evidence, once, if all nodes share one segment.
//!
//! `--check` fails if the share of a processor is more than three times the target. `cargo bench
//! --profile lab -p ferrolb-sim --bench node_watch` takes a second.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant as WallClock};

use ferrolb_controller_core::node_failure::evidence::Evidence;
use ferrolb_core::Machine;
use ferrolb_core::node_failure::WATCHED_NODES;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::facts::{Speaker, SpeakerInterface};
use ferrolb_proto::wire::hello::{
    Body, ClaimSetSummary, Flags, Frame, HelloKey, HelloKeyRing, KEY_LENGTH, NodeWatch,
};
use ferrolb_speaker_core::node_failure::ring;
use ferrolb_speaker_core::node_failure::watcher::{Watcher, WatcherInput, WatcherOutput};

/// Numbers of nodes.
const NODES: [usize; 3] = [3, 100, 1_000];
/// One node of this many fails with the rack.
const NODES_PER_FAILED: usize = 25;
/// Virtual time for which the speaker is measured.
const MEASURED: Duration = Duration::from_secs(600);
/// The target for the share of one processor, in percent.
const SHARE_TARGET: f64 = 0.1;
const CHECK_FACTOR: f64 = 3.0;

fn main() -> ExitCode {
    let mut largest = 0.0_f64;
    println!("nodes  ring ms  datagrams/s  processor %  rack  reports  evidence ms");
    for count in NODES {
        let names: Vec<Arc<str>> = (0..count).map(|n| format!("node{n:04}").into()).collect();
        let start = clock();
        let ring = ring::successors(&names[0], names.iter());
        let ring_ms = start.elapsed().as_secs_f64() * 1e3;
        let (datagrams, share) = one_speaker(ring);
        let (rack, reports, evidence_ms) = failed_rack(&names);
        println!(
            "{count:>5}  {ring_ms:>7.2}  {datagrams:>11.1}  {share:>11.4}  {rack:>4}  \
             {reports:>7}  {evidence_ms:>11.2}"
        );
        largest = largest.max(share);
    }
    let limit = SHARE_TARGET * CHECK_FACTOR;
    let is_over = largest > limit;
    println!("largest share {largest:.4} %, target {SHARE_TARGET} %");
    if is_over && std::env::args().any(|argument| argument == "--check") {
        eprintln!("error: the share is above {limit} %");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[expect(clippy::disallowed_methods, reason = "measures the time that a call takes")]
fn clock() -> WallClock {
    WallClock::now()
}

/// Runs the watcher of one speaker whose nodes all reply, and replies to as many challenges of
/// others. Returns the datagrams per second, sent and received, and the share of a processor.
fn one_speaker(ring: Vec<Arc<str>>) -> (f64, f64) {
    let keys = HelloKeyRing::new(vec![HelloKey::new([7; KEY_LENGTH])]);
    let mut watcher = Watcher::new(7);
    let mut now = Instant::from_millis(1_000);
    let (start, end) = (clock(), now + MEASURED);
    let mut datagrams = 0_u64;
    watcher.handle(WatcherInput::Nodes(ring), now);
    while now < end {
        while let Some(output) = watcher.poll() {
            match output {
                WatcherOutput::Challenge { node, nonce, .. } => {
                    // The challenge, its reply, and the same in the other direction.
                    for message in [NodeWatch::Challenge(nonce), NodeWatch::Reply(nonce)] {
                        exchange(&node, message, &keys, now);
                        datagrams += 2;
                    }
                    let node = (*node).into();
                    let flags = Flags::default();
                    watcher.handle(WatcherInput::Reply { node, nonce, flags }, now);
                }
                WatcherOutput::ProbeKubelet(node) => {
                    watcher.handle(WatcherInput::KubeletProbed { node, replied: true }, now);
                }
                WatcherOutput::Report(_) | WatcherOutput::KubeProxyWorks(_) => {}
            }
        }
        now = watcher.deadline().unwrap_or(end);
        watcher.tick(now);
    }
    let seconds = MEASURED.as_secs_f64();
    (datagrams as f64 / seconds, start.elapsed().as_secs_f64() / seconds * 100.0)
}

/// Signs one message, and verifies another one.
fn exchange(node: &str, message: NodeWatch, keys: &HelloKeyRing, now: Instant) {
    let frame = Frame {
        node: node.into(),
        epoch: 1,
        clock: now.as_nanos(),
        claim_set: ClaimSetSummary::default(),
        interval: Duration::from_millis(500),
        detection_time: None,
        flags: Flags::default(),
        body: Body::NodeWatch(message),
    };
    let key = keys.find(keys.ids()[0]).expect("the ring has this key");
    let datagram = frame.encode_datagram(key);
    Frame::decode_datagram(&datagram, keys).expect("the datagram is valid");
}

/// Lets a rack fail whose nodes follow each other by name. Returns the number of its nodes, the
/// number of speakers that report any of them, and the time to compute the evidence.
fn failed_rack(names: &[Arc<str>]) -> (usize, usize, f64) {
    let failed: BTreeSet<Arc<str>> =
        names.iter().take((names.len() / NODES_PER_FAILED).max(1)).cloned().collect();
    let mut reporting = 0;
    let speaker = |own: &Arc<str>| {
        let is_failed = failed.contains(own);
        let successors = ring::successors(own, names.iter());
        let state = |name: &Arc<str>| match failed.contains(name) && !is_failed {
            true => WatchedNodeState::Silent,
            false => WatchedNodeState::Replies,
        };
        let watched: Vec<_> = successors
            .iter()
            .take(WATCHED_NODES)
            .map(|name| WatchedNode { node: name.to_string(), state: state(name), silent: false })
            .collect();
        let hears = |name: &&Arc<str>| *name != own && (is_failed || !failed.contains(*name));
        let hello_senders = names.iter().filter(hears).map(|name| (**name).into()).collect();
        let interface = SpeakerInterface { hello_senders, ..SpeakerInterface::default() };
        Speaker {
            node: (**own).into(),
            watched: watched.into(),
            interfaces: [interface].into(),
            ..Speaker::default()
        }
    };
    let speakers: Vec<_> = names.iter().map(speaker).collect();
    for speaker in &speakers {
        let is_silent = |it: &WatchedNode| it.state == WatchedNodeState::Silent;
        reporting += usize::from(speaker.watched.iter().any(is_silent));
    }
    let start = clock();
    let evidence = Evidence::new(speakers.iter(), |_| false, |_| false);
    let evidence_ms = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(evidence.suspected.len(), failed.len());
    (failed.len(), reporting, evidence_ms)
}

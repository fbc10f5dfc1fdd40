//! State of one node, and of the paths to other nodes.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::Instant;
use ferrolb_proto::api::WatchedNode;
use ferrolb_speaker_core::node_failure::watcher::Watcher;

use super::queue::Arrival;

/// Conditions of a node. Each is the number of faults that cause it, because faults may overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// The node has no power.
    pub(super) off: u8,
    /// The node's interface is down.
    pub(super) cut: u8,
    /// Nothing arrives on the segment, but UDP does.
    pub(super) segment_cut: u8,
    /// The node's hellos are dropped.
    pub(super) hellos_dropped: u8,
    /// Challenges from and to the node are dropped.
    pub(super) udp_dropped: u8,
    pub(super) kubelet_stopped: u8,
    /// The kubelet's port does not reply to other nodes. The kubelet works.
    pub(super) kubelet_filtered: u8,
    /// The API server is unreachable.
    pub(super) api_cut: u8,
    /// The speaker's process does not exist.
    pub(super) speaker_down: u8,
    /// The speaker's process stands still.
    pub(super) frozen: u8,
    /// Only the task of the watcher stands still.
    pub(super) watcher_frozen: u8,
    /// Number of the part of the network. The API server is in part 0.
    pub(super) part: u8,
    /// True if the API server is reachable from every part.
    pub(super) api_in_all_parts: bool,
}

impl Conditions {
    pub(super) const fn has_network(&self) -> bool {
        self.off == 0 && self.cut == 0
    }

    pub(super) const fn speaker_runs(&self) -> bool {
        self.off == 0 && self.speaker_down == 0
    }

    /// Returns whether the speaker replies.
    pub(super) const fn speaker_works(&self) -> bool {
        self.speaker_runs() && self.frozen == 0
    }

    /// Returns whether the watcher handles events.
    pub(super) const fn watcher_works(&self) -> bool {
        self.speaker_works() && self.watcher_frozen == 0
    }

    pub(super) const fn reaches_api(&self) -> bool {
        self.has_network() && self.api_cut == 0 && (self.part == 0 || self.api_in_all_parts)
    }

    /// Returns whether the kubelet can write to the API server.
    pub(super) const fn kubelet_works(&self) -> bool {
        self.off == 0 && self.kubelet_stopped == 0 && self.reaches_api()
    }

    /// Returns whether the node is alive and reachable, in the sense of the checked rule: it has
    /// power, its network reaches most other nodes and the API server, and its kubelet runs.
    pub(super) const fn is_alive(&self) -> bool {
        self.kubelet_works() && self.part == 0
    }

    /// Returns whether watching the node, and watching from it, has no surprises.
    pub(super) const fn is_calm(&self) -> bool {
        self.has_network()
            && self.watcher_works()
            && self.segment_cut == 0
            && self.hellos_dropped == 0
            && self.udp_dropped == 0
            && self.kubelet_filtered == 0
    }

    pub(super) const fn reaches(&self, other: &Self) -> bool {
        self.has_network() && other.has_network() && self.part == other.part
    }

    pub(super) const fn exchanges_udp(&self, other: &Self) -> bool {
        self.reaches(other) && self.udp_dropped == 0 && other.udp_dropped == 0
    }

    /// Returns whether a node receives the hellos of another node on the same segment.
    pub(super) const fn receives_hellos_of(&self, other: &Self) -> bool {
        self.reaches(other)
            && self.segment_cut == 0
            && other.segment_cut == 0
            && other.hellos_dropped == 0
            && other.speaker_works()
    }
}

/// The speaker's process.
#[derive(Debug)]
pub(super) struct Process {
    /// Number of the process on its node.
    pub(super) number: u32,
    /// The watcher, once the process has a reason to simulate it.
    pub(super) watcher: Option<Watcher>,
    /// True if the watcher is not simulated at the moment.
    pub(super) is_parked: bool,
    /// Time since which the watcher is simulated.
    pub(super) unparked_at: Instant,
    /// Time of the latest call of the watcher.
    pub(super) latest_call: Instant,
    /// Time of the next `Wake`; others are outdated.
    pub(super) wake_at: Option<Instant>,
    pub(super) report: Vec<WatchedNode>,
    /// Inputs that have arrived while the process stood still.
    pub(super) inbox: Vec<Arrival>,
    /// Challenges of other nodes that have arrived while the process stood still.
    pub(super) unanswered: Vec<(usize, u32, u64)>,
    /// Latest nonce that the speaker has replied to, for each challenger.
    pub(super) replied: BTreeMap<usize, (u32, u64)>,
    /// Nodes whose hellos arrive.
    pub(super) contacts: BTreeSet<usize>,
    pub(super) contacts_pending: bool,
    pub(super) write_pending: bool,
    /// Time at which the rate limit of writes has its full burst again.
    pub(super) full_burst_at: Instant,
}

impl Process {
    pub(super) fn new(number: u32, now: Instant) -> Self {
        Self {
            number,
            watcher: None,
            is_parked: true,
            unparked_at: now,
            latest_call: Instant::ZERO,
            wake_at: None,
            report: Vec::new(),
            inbox: Vec::new(),
            unanswered: Vec::new(),
            replied: BTreeMap::new(),
            contacts: BTreeSet::new(),
            contacts_pending: false,
            write_pending: false,
            full_burst_at: now,
        }
    }
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) conditions: Conditions,
    /// The node's position in the ring.
    pub(super) position: usize,
    /// True if the speaker is one that does not know the field `silent`.
    pub(super) is_old: bool,
    /// Number of pods that its speaker has had.
    pub(super) pods: u32,
    pub(super) process: Process,
    /// Time of a synchronization of the kubelet; the others follow at a fixed interval.
    pub(super) sync_phase: Instant,
    pub(super) sync_pending: bool,
    /// Number of times that the kubelet has stopped or started to send heartbeats.
    pub(super) heartbeat_period: u32,
    /// True if the condition Ready of the Node is True.
    pub(super) is_ready: bool,
    /// True if the pods are marked by the controller.
    pub(super) is_marked: bool,
    /// Time at which the latest write of the SpeakerStatus reaches the API server.
    pub(super) latest_stored: Instant,
    /// Time at which the latest write of the SpeakerStatus reaches the controller.
    pub(super) latest_seen: Instant,
    /// Time at which the latest change of the speaker's pod reaches the controller.
    pub(super) latest_pod_seen: Instant,
}

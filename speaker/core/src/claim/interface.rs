//! Configuration, inputs and outputs of the claim machine. The types only contain values.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::Unit;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::Frame;

use super::{Move, STAGGER_MIN, STAGGER_OVER_INTERVAL};

/// Parameters of a [`ClaimMachine`](super::ClaimMachine).
#[derive(Clone, Debug)]
pub struct ClaimConfig {
    /// Name of this node.
    pub node: Arc<str>,
    /// Random number, new at every start, by which peers distinguish two runs of a speaker. The
    /// number also seeds the random delays of the state machine.
    pub epoch: u64,
    /// Hello interval while this node owns an address.
    pub hello_interval: Duration,
    /// Number of missed hellos after which peers suspect this node.
    pub hello_misses: u32,
    /// Longest detection time that late hellos of this node cause.
    pub detection_time_max: Duration,
    /// Preempt delay (`--failback-delay`); `None` (`never`) if this node's preempt delay never
    /// ends.
    pub failback_delay: Option<Duration>,
}

impl ClaimConfig {
    /// Returns the time that each candidate waits for the candidate that ranks before it.
    pub(super) fn stagger(&self) -> Duration {
        STAGGER_MIN.max(self.hello_interval + STAGGER_OVER_INTERVAL)
    }
}

/// State of the node that other parts of the speaker determine, the same on all interfaces of the
/// node. Each field sets the flag of the same name in [`Flags`](ferrolb_proto::wire::hello::Flags).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// True if the node has an announcement drain, and therefore hands over its addresses.
    pub draining: bool,
    /// True if kube-proxy of the node is unhealthy, or its health is not known yet.
    pub unhealthy: bool,
    /// True if kube-proxy of the node was checked and is healthy.
    pub health_checked: bool,
}

/// Inputs of [`ClaimMachine`](super::ClaimMachine).
#[derive(Clone, Debug)]
pub enum Input {
    /// Election units of this segment have changed. Only the changed units are evaluated again. The
    /// caller and the state machine share each unit, because 10,000 units are the largest part of a
    /// speaker's memory.
    Units {
        /// New and changed units, sorted by address.
        changed: Vec<Arc<Unit>>,
        /// Addresses that are no longer units, ascending.
        removed: Vec<IpAddr>,
    },
    /// IDs of the hello keys with which this node can verify frames, newest first. Without a key,
    /// the state machine sends no frame and claims nothing.
    Keys(Vec<u32>),
    /// The state of the node has changed to this value.
    NodeState(NodeState),
    /// A frame of the ownership protocol was received, decoded and verified.
    Frame {
        /// Source MAC of the Ethernet header.
        source: Mac,
        /// Contents of the frame.
        frame: Frame,
    },
    /// A datagram of the second path was received, decoded and verified.
    Datagram(Frame),
    /// An ARP reply or a neighbor advertisement arrived from this MAC after an
    /// [`Output::LivenessProbe`]: the peer, or a device on its behalf, still replies.
    ArpReply(Mac),
    /// A host has replied to a request of [`Output::ProbeNeighbors`], so frames of this node arrive
    /// on the segment.
    NeighborReplied,
    /// This node has replied to an ARP request or a neighbor solicitation of the host with this
    /// MAC, and [`Peers::awaits_request_from`](super::Peers::awaits_request_from) returns true for
    /// it.
    RequestAnswered(Mac),
    /// The kernel dropped hello frames, because this node read them too late. Missing hellos
    /// therefore do not prove that a peer has failed.
    FramesDropped,
    /// A frame that no other input represents was received, which proves that this node is not
    /// isolated.
    FrameReceived,
    /// An ARP or NDP frame was received in which an address that this node owns or probes has the
    /// hardware address of another host.
    ForeignFrame {
        /// IP address in the frame.
        address: IpAddr,
        /// Hardware address in the frame.
        mac: Mac,
        /// True if the frame is an announcement or a request, false if it is a reply to a request
        /// of this node.
        announced: bool,
    },
    /// A frame of another interface of this node was received, so both interfaces are on the same
    /// segment.
    SiblingInterface {
        /// True if the other interface becomes the active one, and this one the standby interface.
        /// False for the reverse.
        is_active: bool,
    },
    /// The main loop, which provides the units, has stalled (true) or resumed (false).
    MainLoopStalled(bool),
    /// The speaker is about to stop, and first hands over its addresses.
    Leave,
    /// The interface is no longer used. The state machine releases all addresses at once, because
    /// there is no time for a handover.
    InterfaceRemoved,
}

impl Input {
    /// Returns whether the input proves that this node receives frames.
    pub(super) const fn proves_receipt(&self) -> bool {
        matches!(
            self,
            Self::Frame { .. }
                | Self::ArpReply(_)
                | Self::FrameReceived
                | Self::NeighborReplied
                | Self::ForeignFrame { .. }
                | Self::SiblingInterface { .. }
        )
    }
}

/// Outputs of [`ClaimMachine`](super::ClaimMachine): actions that its driver must execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this frame to `to`, or to the multicast group of all speakers if `to` is `None`.
    Send {
        /// Destination MAC.
        to: Option<Mac>,
        /// ID of the signing key.
        key: u32,
        /// Frame to sign and send.
        frame: Frame,
    },
    /// Send this frame by the second path, as UDP datagram to the node with the name `to`.
    SendDatagram {
        /// Name of the node.
        to: Arc<str>,
        /// ID of the signing key.
        key: u32,
        /// Frame to sign and send.
        frame: Frame,
    },
    /// Start to reply to ARP and NDP requests for this address, and announce it.
    Start(IpAddr),
    /// An address moves to this node, or from this node to a peer.
    Moved(Move),
    /// Repeat the full series of announcements of this address, because another node has claimed it
    /// or may have announced it, and this node still owns it.
    AnnounceSeries(IpAddr),
    /// Announce this address once, because another host has announced it or may have announced it,
    /// and this node still owns it.
    Defend(IpAddr),
    /// Stop replying to requests for this address, and stop announcing it.
    Stop(IpAddr),
    /// Send an ARP request or a neighbor solicitation, because the peer at `mac` may have failed.
    /// Report a reply from `mac` as [`Input::ArpReply`].
    LivenessProbe {
        /// Name of the peer.
        node: Arc<str>,
        /// Source MAC of the peer's latest frame.
        mac: Mac,
        /// An address that the peer claims; `None` for an address of its node.
        address: Option<IpAddr>,
    },
    /// Send an ARP probe for this address (RFC 5227 section 2.1.1), and report each reply within
    /// the next second as [`Input::ForeignFrame`].
    ArpProbe(IpAddr),
    /// Send ARP requests or neighbor solicitations to known hosts, because peers are silent. Any
    /// reply proves that this node receives frames, and that the peers send none.
    ProbeNeighbors,
    /// The speaker may end: this node owns no address any more, or
    /// [`HANDOVER_TIMEOUT`](super::HANDOVER_TIMEOUT) has passed.
    Finished,
}

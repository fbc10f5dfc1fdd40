//! All inputs of the controller's state, as one enum of plain values. The watches, the drivers and
//! the main loop create events, and [`crate::state`] alone handles them.

use ferrolb_core::store::Change;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{
    AddressMemory, BfdProfile, BgpAdvertisement, BgpPeer, Community, EndpointSlice, Key,
    L2Advertisement, Namespace, Node, Pod, Pool, Service, Speaker,
};

use crate::desired::Target;
use crate::node_failure::failures::ActionResult;

/// An input of the controller's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A Service changed.
    Service(Change<Service>),
    /// An EndpointSlice changed.
    Slice(Change<EndpointSlice>),
    /// A SpeakerStatus changed.
    Speaker(Change<Speaker>),
    /// A pod of FerroLB changed.
    Pod(Change<Pod>),
    /// A Node changed.
    Node(Change<Node>),
    /// A Namespace changed.
    Namespace(Change<Namespace>),
    /// The ConfigMap with the addresses of deleted Services changed.
    AddressMemory(Change<AddressMemory>),
    /// An IPAddressPool changed.
    Pool(Change<Pool>),
    /// An L2Advertisement changed.
    Advertisement(Change<L2Advertisement>),
    /// A Community changed.
    Community(Change<Community>),
    /// A BGPPeer changed.
    Peer(Change<BgpPeer>),
    /// A BGPAdvertisement changed.
    BgpAdvertisement(Change<BgpAdvertisement>),
    /// A BFDProfile changed.
    BfdProfile(Change<BfdProfile>),
    /// This replica acquired, renewed, or lost the lease.
    Lease(Leadership),
    /// The writer attempted a desired write.
    Written {
        /// The object of the write.
        target: Target,
        /// The attempt number from [`crate::desired::Write`].
        attempt: u64,
        /// The result of the attempt.
        outcome: Outcome,
    },
    /// A driver has executed an action on a silent node.
    NodeActionEnded {
        /// Number of the action from [`crate::desired::NodeTask`].
        attempt: u64,
        /// The result.
        result: ActionResult,
    },
    /// Time has passed, so deadlines may be due.
    Tick,
}

/// Leadership of this replica: whether it holds the leader lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// The replica may write until this instant. After the first such event of a leadership term,
    /// the main loop lists all objects again.
    Held(Instant),
    /// The replica lost or released the lease.
    Lost,
}

/// Result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API server stored the status.
    Done,
    /// The API server rejected the write, did not respond in time, or sent a response that cannot
    /// be read.
    Refused,
    /// The API server is unavailable or overloaded, the lease has expired, or the object was
    /// deleted, replaced, or is not FerroLB's any more.
    Failed,
}

impl Event {
    /// Returns the object that this event reports as unreadable: its kind, its key, and the reason.
    /// `None`: the event reports no such object.
    #[must_use]
    pub fn unreadable(&self) -> Option<(&'static str, &Key, &str)> {
        match self {
            Self::Service(change) => change.unreadable("Service"),
            Self::Slice(change) => change.unreadable("EndpointSlice"),
            Self::Speaker(change) => change.unreadable("SpeakerStatus"),
            Self::Pod(change) => change.unreadable("Pod"),
            Self::Node(change) => change.unreadable("Node"),
            Self::Namespace(change) => change.unreadable("Namespace"),
            Self::AddressMemory(change) => change.unreadable("ConfigMap"),
            Self::Pool(change) => change.unreadable("IPAddressPool"),
            Self::Advertisement(change) => change.unreadable("L2Advertisement"),
            Self::Community(change) => change.unreadable("Community"),
            Self::Peer(change) => change.unreadable("BGPPeer"),
            Self::BgpAdvertisement(change) => change.unreadable("BGPAdvertisement"),
            Self::BfdProfile(change) => change.unreadable("BFDProfile"),
            Self::Lease(_) | Self::Written { .. } | Self::NodeActionEnded { .. } | Self::Tick => {
                None
            }
        }
    }
}

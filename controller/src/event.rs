//! All inputs of the controller's state, as one enum of plain values. The watches, the drivers and
//! the main loop create events, and [`crate::state`] alone handles them.

use ferrolb_proto::Instant;
use ferrolb_proto::api::{CustomResourceKind, StatusFields};
use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, EndpointSlice, Key, L2Advertisement,
    Namespace, Node, Pool, Service, Speaker,
};
use ferrolb_runtime::watch::Change;

use crate::desired::Target;

/// An input of the controller's state.
#[derive(Debug)]
pub enum Event {
    /// A Service changed.
    Service(Change<Service>),
    /// An EndpointSlice changed.
    Slice(Change<EndpointSlice>),
    /// A SpeakerStatus changed.
    Speaker(Change<Speaker>),
    /// A Node changed.
    Node(Change<Node>),
    /// A Namespace changed.
    Namespace(Change<Namespace>),
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
    /// A driver has read which status fields the CRD of this kind has in this cluster.
    StatusFieldsRead(CustomResourceKind, StatusFields),
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
    /// Time has passed, so deadlines may be due.
    Tick,
}

/// Whether this replica holds the lease.
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
        const fn of<'a, F>(
            kind: &'static str,
            change: &'a Change<F>,
        ) -> Option<(&'static str, &'a Key, &'a str)> {
            match change {
                Change::Unreadable { key, why } => Some((kind, key, why.as_str())),
                Change::ResyncStarted
                | Change::Apply(_)
                | Change::Delete(_)
                | Change::ResyncDone => None,
            }
        }
        match self {
            Self::Service(change) => of("Service", change),
            Self::Slice(change) => of("EndpointSlice", change),
            Self::Speaker(change) => of("SpeakerStatus", change),
            Self::Node(change) => of("Node", change),
            Self::Namespace(change) => of("Namespace", change),
            Self::Pool(change) => of("IPAddressPool", change),
            Self::Advertisement(change) => of("L2Advertisement", change),
            Self::Community(change) => of("Community", change),
            Self::Peer(change) => of("BGPPeer", change),
            Self::BgpAdvertisement(change) => of("BGPAdvertisement", change),
            Self::BfdProfile(change) => of("BFDProfile", change),
            Self::StatusFieldsRead(..) | Self::Lease(_) | Self::Written { .. } | Self::Tick => None,
        }
    }
}

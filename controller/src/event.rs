//! All that can happen to the controller: one closed enum, so that one list shows what can trigger work. Plain values, made
//! by the drivers at the edge and read by [`crate::state`] alone.

use ferrolb_proto::Instant;
use ferrolb_proto::api::{Kind, StatusFields};
use ferrolb_proto::facts::{
    Advertisement, BfdProfile, BgpAdvertisement, BgpPeer, Community, Key, Namespace, Node, Pool, Service, Slice,
    Speaker,
};
use ferrolb_runtime::watch::Change;

use crate::desired::Target;

/// What can happen.
#[derive(Debug)]
pub enum Event {
    /// A Service changed.
    Service(Change<Service>),
    /// An EndpointSlice changed.
    Slice(Change<Slice>),
    /// A SpeakerStatus changed.
    Speaker(Change<Speaker>),
    /// A Node changed.
    Node(Change<Node>),
    /// A Namespace changed.
    Namespace(Change<Namespace>),
    /// An IPAddressPool changed.
    Pool(Change<Pool>),
    /// An L2Advertisement changed.
    Advertisement(Change<Advertisement>),
    /// A Community changed.
    Community(Change<Community>),
    /// A BGPPeer changed.
    Peer(Change<BgpPeer>),
    /// A BGPAdvertisement changed.
    BgpAdvertisement(Change<BgpAdvertisement>),
    /// A BFDProfile changed.
    BfdProfile(Change<BfdProfile>),
    /// The status fields that the cluster's CRD of a kind has were read.
    Fields(Kind, StatusFields),
    /// This replica got, renewed or lost the lease.
    Lease(Leadership),
    /// A driver tried to write what was desired.
    Written {
        /// What was written.
        target: Target,
        /// The number of the try, from [`crate::desired::Write`].
        attempt: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// Time has passed: what waited for it may be due.
    Tick,
}

/// Whether this replica holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It may write until then. After the first of these new lists of all objects follow, made
    /// after that moment.
    Held(Instant),
    /// It lost it or gave it back.
    Lost,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The API server has it.
    Done,
    /// The API server refused it, did not answer in time, or sent an answer that cannot be read.
    Refused,
    /// The API server cannot be reached, or the object is no longer what it was.
    Failed,
}

impl Event {
    /// The object that this event says cannot be read: its kind, its name and why.
    #[must_use]
    pub fn unreadable(&self) -> Option<(&'static str, &Key, &str)> {
        const fn of<'a, F>(kind: &'static str, change: &'a Change<F>) -> Option<(&'static str, &'a Key, &'a str)> {
            match change {
                Change::Unreadable { key, why } => Some((kind, key, why.as_str())),
                Change::ResyncStarted | Change::Apply(_) | Change::Delete(_) | Change::ResyncDone => None,
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
            Self::Fields(..) | Self::Lease(_) | Self::Written { .. } | Self::Tick => None,
        }
    }
}

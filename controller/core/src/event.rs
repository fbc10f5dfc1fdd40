//! All inputs of the controller's state, as one enum of plain values. The watches, the drivers and
//! the main loop create events, and [`crate::state`] alone handles them.

use ferrolb_core::watched_kinds;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{
    AddressMemory, BfdProfile, BgpAdvertisement, BgpPeer, Community, EndpointSlice, Key,
    L2Advertisement, Namespace, Node, Pod, Pool, Service, Speaker,
};

use crate::desired::Target;
use crate::node_failure::failures::ActionResult;

/// An input of the controller's state.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most events are changes of objects")]
pub enum Event {
    /// An object changed.
    Object(ObjectChange),
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// The replica may write until this instant. After the first such event of a leadership term,
    /// the main loop lists all objects again.
    Held(Instant),
    /// The replica lost or released the lease.
    Lost,
    /// The replica has read that another one, with this identity (`spec.holderIdentity`), has taken
    /// or renewed the lease.
    Other(Box<str>),
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

watched_kinds! {
    /// A change of an object of any watched kind.
    #[derive(Clone, Debug, PartialEq)]
    pub enum ObjectChange;

    /// Passes the kinds to the visitor that every controller watches.
    for_each_kind: {
        Service,
        EndpointSlice,
        Node,
        Namespace,
        AddressMemory,
        Pool,
        L2Advertisement,
        Community,
        BgpPeer,
        BgpAdvertisement,
        BfdProfile,
    }

    /// Passes the kinds to the visitor that the controller watches only with FerroLB's own API
    /// group, because no other one has the kind SpeakerStatus.
    for_each_own_kind: {
        Speaker,
        Pod,
    }
}

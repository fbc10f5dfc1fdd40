//! Reasons for which the thread of an interface drops a frame. Plain values, which label a metric.

use ferrolb_proto::wire::hello::HelloDecodeError;

/// Reason for which a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Malformed hello frame.
    Malformed,
    /// Hello frame of an unsupported protocol version.
    Version,
    /// Hello frame of another cluster, or signed with a key that this speaker has not received yet.
    ForeignKey,
    /// Hello frame with an invalid signature.
    Signature,
    /// Hello frame that is not newer than one already received: reordered or replayed.
    Stale,
    /// Hello frame of a speaker that has not responded to a challenge yet. Either the speaker has
    /// just started, or the frame was recorded before the speaker's restart.
    ChallengePending,
    /// Hello frame with this node's own name: a reflection, or the frame of another node with the
    /// same name.
    OwnName,
    /// Frame or claim that a full table of the claim machine could not store.
    TableFull,
    /// Request that got no reply because the answer lease had expired: this node had stalled, and
    /// another node may own the address by now.
    LeaseExpired,
    /// ARP frame that the kernel dropped because its receive queue was full.
    KernelArp,
    /// Neighbor Discovery frame that the kernel dropped because its receive queue was full.
    KernelNdp,
    /// Hello frame that the kernel dropped because its receive queue was full.
    KernelHello,
    /// Outgoing frame that the kernel rejected.
    SendRejected,
}

impl From<HelloDecodeError> for DropReason {
    fn from(error: HelloDecodeError) -> Self {
        match error {
            HelloDecodeError::Malformed => Self::Malformed,
            HelloDecodeError::Version => Self::Version,
            HelloDecodeError::ForeignKey => Self::ForeignKey,
            HelloDecodeError::Signature => Self::Signature,
        }
    }
}

impl DropReason {
    pub(super) const ALL: [Self; 13] = [
        Self::Malformed,
        Self::Version,
        Self::ForeignKey,
        Self::Signature,
        Self::Stale,
        Self::ChallengePending,
        Self::OwnName,
        Self::TableFull,
        Self::LeaseExpired,
        Self::KernelArp,
        Self::KernelNdp,
        Self::KernelHello,
        Self::SendRejected,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::ForeignKey => "foreign_key",
            Self::Signature => "signature",
            Self::Stale => "stale",
            Self::ChallengePending => "unproven",
            Self::OwnName => "own_name",
            Self::TableFull => "limit",
            Self::LeaseExpired => "gate",
            Self::KernelArp => "kernel_arp",
            Self::KernelNdp => "kernel_ndp",
            Self::KernelHello => "kernel_hello",
            Self::SendRejected => "send",
        }
    }
}

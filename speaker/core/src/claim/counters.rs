//! Counters of events, which the driver exports as metrics. Part of the claim machine of one
//! interface.

/// Counters of events since the machine was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimCounters {
    /// Number of times a peer was suspected of having failed, because its hellos were missing.
    pub suspicions: u64,
    /// Number of suspicions that ended with a frame from the suspected peer.
    pub refuted: u64,
    /// Number of times a peer became unheard: it is alive, but its frames do not arrive.
    pub unheard: u64,
    /// Number of times a peer was declared failed.
    pub peer_failures: u64,
    /// Number of times a peer was declared failed although a device replied to ARP for it.
    pub proxied_failures: u64,
    /// Number of frames in which a foreign host uses an address that this node owns or probes.
    pub foreign_hosts: u64,
    /// Number of frames in which a peer uses an address that this node owns or probes, although the
    /// peer does not claim it: the kernel of the peer replies.
    pub kernel_replies: u64,
    /// Number of times this node released all its addresses because it had stalled.
    pub fences: u64,
    /// Number of times this node became isolated: no frame arrived, although it had peers.
    pub isolations: u64,
    /// Number of times a frame of a peer claimed a unit that this node owns.
    pub conflicts: u64,
    /// Number of frames that were dropped because they were not newer than the latest frame of
    /// their sender.
    pub stale_frames: u64,
    /// Number of frames from a node, or a new epoch of a node, that has not passed a challenge.
    /// Such frames come from nodes that have just started, or are replayed recordings.
    pub unchallenged: u64,
    /// Number of frames that carry this node's own name: reflections, or frames of a second node
    /// with the same name.
    pub own_name_frames: u64,
    /// Number of frames, claims and conflicts that were ignored because a table
    /// was full.
    pub over_limit: u64,
}

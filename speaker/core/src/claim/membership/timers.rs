//! Names of the timers of this node. Part of the membership of one interface.

/// Timer of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next hello is due. The timer runs while this node has a key.
    Hello,
    /// End of the handover of this node, which leaves.
    Handover,
    /// End of the current listen phase.
    ListenPhase,
    /// End of this node's preempt delay. The timer does not run if the delay never ends.
    PreemptDelay,
    /// End of the standby period of this interface, during which another interface of this node is
    /// active on the segment.
    Standby,
}

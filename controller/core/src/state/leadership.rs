//! Leadership of this replica: the lease, and whether the replica decides. Plain values; owned by
//! the state.

use ferrolb_proto::Instant;

/// Leadership of this replica.
#[derive(Debug, Default)]
pub(super) struct LeadershipTerm {
    /// Number of terms of this replica, including the current one.
    count: u32,
    has_lease: bool,
    /// Time until which this replica may write unless it renews the lease.
    expiry: Instant,
    /// Identity of the replica that has the lease, if it is another one.
    leader: Option<Box<str>>,
    /// True if this replica is the active leader: it has the lease and complete lists of the
    /// required kinds.
    pub(super) is_active: bool,
}

impl LeadershipTerm {
    /// Records that this replica has the lease until `expiry`. Returns whether a term begins.
    pub(super) fn hold_until(&mut self, expiry: Instant) -> bool {
        let begins = !self.has_lease;
        self.count += begins as u32;
        (self.has_lease, self.expiry, self.leader) = (true, expiry, None);
        begins
    }

    /// Records that another replica has the lease.
    pub(super) fn follow(&mut self, leader: Box<str>) {
        self.leader = Some(leader);
    }

    /// Returns the name of the pod that has the lease, if it is another one. The identity of a
    /// replica begins with its host name, which is that of its pod.
    pub(super) fn leading_pod(&self) -> Option<&str> {
        self.leader.as_ref()?.rsplit_once('_').map(|(pod, _)| pod)
    }

    /// Records that this replica has lost the lease.
    pub(super) const fn end(&mut self) {
        self.has_lease = false;
    }

    pub(super) const fn has_lease(&self) -> bool {
        self.has_lease
    }

    /// Returns the number of the term, if this replica has the lease.
    pub(super) fn number(&self) -> Option<u32> {
        self.has_lease.then_some(self.count)
    }

    /// Returns the time until which this replica may write, if it has the lease.
    pub(super) const fn expiry(&self) -> Instant {
        self.expiry
    }
}

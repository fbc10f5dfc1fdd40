//! Actions on a silent node: which one its state machine has begun, and when its attempts begin and
//! end. Part of the state machine.

use ferrolb_proto::Instant;

use super::{ATTEMPTS_MAX, CONFIRMATION_TIME};

/// Result of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionResult {
    /// All pods are patched, or the kubelet did not reply to the controller either.
    Done,
    /// A request has failed, so that some pods may not be patched.
    Failed,
    /// The kubelet has replied to the controller.
    KubeletReplied,
}

/// An action that the driver must execute, once for each attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureAction {
    /// Number of the attempt, which is never reused.
    pub attempt: u64,
    /// Name of the node.
    pub node: Box<str>,
    /// The kind of the action.
    pub kind: ActionKind,
}

/// Kind of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActionKind {
    /// Connect to the kubelet's port.
    ProbeKubelet,
    /// Mark the pods of the node as not Ready.
    Mark,
    /// Restore the pods of the node that are still marked.
    Restore,
}

/// An action, from its first attempt to its end.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) kind: ActionKind,
    pub(super) attempt: u64,
    pub(super) attempts: u32,
    /// Time of the next attempt; `None` while one is in progress.
    pub(super) retry_at: Option<Instant>,
}

impl Pending {
    /// Begins the next attempt when it is due. Returns false if the evidence refutes the action.
    ///
    /// An attempt to mark ends with its evidence. If the evidence holds again from the next
    /// evaluation on, the next attempt follows: the silence of the leader's node may go on after a
    /// renewal of the lease.
    pub(super) fn update(
        &mut self,
        is_candidate: bool,
        latest_attempt: &mut u64,
        now: Instant,
    ) -> bool {
        let is_refuted = match self.kind {
            ActionKind::Restore => is_candidate,
            ActionKind::ProbeKubelet | ActionKind::Mark => !is_candidate,
        };
        if is_refuted {
            let is_in_progress = self.retry_at.is_none();
            self.retry_at = Some(now + CONFIRMATION_TIME);
            return self.kind == ActionKind::Mark && is_in_progress && self.attempts < ATTEMPTS_MAX;
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            *latest_attempt += 1;
            (self.attempt, self.retry_at) = (*latest_attempt, None);
            self.attempts += 1;
        }
        true
    }
}

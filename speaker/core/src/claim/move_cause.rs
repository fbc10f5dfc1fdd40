//! Cause of a move of an address, which follows from the ranks that the two nodes state. Both nodes
//! therefore report the same cause.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::{Rank, SoftRules};

/// Move of an address to another node, as one of the two nodes reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Address that moves.
    pub address: IpAddr,
    /// Node that owned the address; `None` if it released the address before.
    pub from: Option<Arc<str>>,
    /// Node that owns the address from now on.
    pub to: Arc<str>,
    /// Cause of the move.
    pub cause: MoveCause,
    /// Time from the latest frame of the former owner to the claim of the new one. Present only in
    /// a failover: if the former owner failed, and its address was taken over within a minute.
    pub silence: Option<Duration>,
}

/// Cause of a move of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveCause {
    /// The former owner failed.
    NodeFailed,
    /// The former owner had released the address.
    Released,
    /// The former owner receives no frames.
    Isolated,
    /// The former owner may not announce the address any more, or another node doubts that it may.
    Ineligible,
    /// The speaker of the former owner stops, or its main loop is stalled.
    Leaving,
    /// The health checks of the address fail on the former owner.
    Failing,
    /// The former owner has an announcement drain.
    Draining,
    /// kube-proxy of the former owner is unhealthy.
    Unhealthy,
    /// All local endpoints of the former owner are terminating.
    Terminating,
    /// The former owner is cordoned or not Ready.
    Cordoned,
    /// The new owner is better by the preempt delay, the preference or the order.
    Order,
}

impl MoveCause {
    /// All causes.
    pub const ALL: [Self; 11] = [
        Self::NodeFailed,
        Self::Released,
        Self::Isolated,
        Self::Ineligible,
        Self::Leaving,
        Self::Failing,
        Self::Draining,
        Self::Unhealthy,
        Self::Terminating,
        Self::Cordoned,
        Self::Order,
    ];

    /// Returns the name of the cause in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeFailed => "node_failed",
            Self::Released => "released",
            Self::Isolated => "isolated",
            Self::Ineligible => "ineligible",
            Self::Leaving => "leaving",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Terminating => "terminating",
            Self::Cordoned => "cordoned",
            Self::Order => "order",
        }
    }

    /// Returns the cause of a move from a node with the rank `from` to a node with the better rank
    /// `to`: the worst soft rule that applies only to the former owner.
    pub(super) fn between(from: &Rank<'_>, to: &Rank<'_>) -> Self {
        let rules = [
            (SoftRules::ISOLATED, Self::Isolated),
            (SoftRules::INELIGIBLE, Self::Ineligible),
            (SoftRules::LEAVING, Self::Leaving),
            (SoftRules::FAILING, Self::Failing),
            (SoftRules::DRAINING, Self::Draining),
            (SoftRules::UNHEALTHY, Self::Unhealthy),
            (SoftRules::TERMINATING, Self::Terminating),
            (SoftRules::CORDONED, Self::Cordoned),
        ];
        let is_worse = |rule: SoftRules| from.soft_rules.has(rule) && !to.soft_rules.has(rule);
        rules.into_iter().find(|(rule, _)| is_worse(*rule)).map_or(Self::Order, |(_, cause)| cause)
    }
}

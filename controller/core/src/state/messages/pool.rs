//! Messages of the condition `Valid` of an IPAddressPool. Pure.

use std::fmt::{self, Display};
use std::net::IpAddr;

use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::{PoolProblem, WidenedCidr};
use ferrolb_proto::range::AddressRange;

use super::{BAD_SELECTOR, FirstNames, Message, SEPARATOR, UNREADABLE, VALID};
use crate::state::alloc::SkipReason;

/// `True`: addresses of the pool are in no subnet of the interfaces that announce it.
///
/// Action: Correct the range, or set `spec.routed: true` if routes exist. For a pool of BGP, limit
/// the L2Advertisement to others by `ipAddressPools`.
const OUTSIDE_SUBNETS: &str = "OutsideSubnets";

/// Reason why a pool is invalid. The controller assigns no addresses from an invalid pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum PoolFault {
    /// The specification of the pool is invalid.
    Problem(PoolProblem),
    /// The pool contains an address of an older pool, which remains in use.
    ///
    /// `range` of the pool overlaps `older_range` of the older pool `older`.
    ///
    /// Action: Remove the overlap from one of them.
    Overlap { pool: Box<str>, range: AddressRange, older: Box<str>, older_range: AddressRange },
}

/// The content of an IPAddressPool's condition `Valid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum PoolMessage<'a> {
    /// The addresses of the pool can be assigned, except the `skipped` ones. The ranges in
    /// `outside` are in no subnet of the interfaces that announce the pool. The entries in
    /// `widened` are larger than they look.
    Valid {
        skipped: Vec<SkippedAddress<'a>>,
        outside: &'a [AddressRange],
        widened: &'a [WidenedCidr],
    },
    Fault(&'a PoolFault),
}

/// An address of a pool that automatic assignment skips, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) struct SkippedAddress<'a>(
    pub(in crate::state) IpAddr,
    pub(in crate::state) SkipReason<'a>,
);

impl Display for SkippedAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.1)
    }
}

impl Message for PoolMessage<'_> {
    fn status(&self) -> ConditionStatus {
        matches!(self, Self::Valid { .. }).into()
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Valid { outside: [], .. } => VALID,
            Self::Valid { .. } => OUTSIDE_SUBNETS,
            Self::Fault(PoolFault::Overlap { .. }) => "Overlap",
            Self::Fault(PoolFault::Problem(problem)) => match problem {
                PoolProblem::Empty | PoolProblem::Addresses(_) | PoolProblem::Special(..) => {
                    "BadAddresses"
                }
                PoolProblem::Exclude(_) => "BadExcludeAddresses",
                PoolProblem::Overlap(..) => "Overlap",
                PoolProblem::Selector(_) => BAD_SELECTOR,
                PoolProblem::StickyFor(_) => "BadTime",
                PoolProblem::Unreadable(_) => UNREADABLE,
            },
        }
    }
}

impl Display for PoolMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid { skipped, outside, widened } => {
                f.write_str("addresses of this pool can be assigned")?;
                if !skipped.is_empty() {
                    write!(f, ", except {}", FirstNames(skipped))?;
                }
                if !widened.is_empty() {
                    write!(f, "{SEPARATOR}{}", FirstNames(widened))?;
                }
                if outside.is_empty() {
                    return Ok(());
                }
                write!(
                    f,
                    "{SEPARATOR}addresses of {} are in no subnet of the interfaces that announce \
                     this pool, so clients do not find them or get no reply: correct \
                     spec.addresses, or set spec.routed to true if routes exist",
                    FirstNames(outside)
                )
            }
            Self::Fault(PoolFault::Problem(problem)) => problem.fmt(f),
            Self::Fault(PoolFault::Overlap { pool, range, older, older_range }) => write!(
                f,
                "{range} of this pool ({pool}) overlaps {older_range} of IPAddressPool {older}, \
                 which is older: this pool assigns nothing until the overlap is removed from one \
                 of them"
            ),
        }
    }
}

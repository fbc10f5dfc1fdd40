//! Messages of the condition `Valid` of a BGPAdvertisement. Pure.

use std::fmt::{self, Display};

use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::BgpAdvertisementProblem;
use ferrolb_proto::range::Family;

use super::{BAD_SELECTOR, FirstNames, Message, UNREADABLE, UnknownPools, VALID};

/// The content of a BGPAdvertisement's condition `Valid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum BgpMessage<'a> {
    Valid,
    Problem(&'a BgpAdvertisementProblem),
    /// No Community defines a name in `spec.communities`, so nothing is announced.
    ///
    /// Action: Define the name, or remove it.
    UnknownCommunity(Vec<&'a str>),
    /// `spec.ipAddressPools` names a pool that does not exist. The other pools are announced.
    ///
    /// Action: Create the pool, or remove the name.
    UnknownPool(Vec<&'a str>),
    /// `spec.peers` names a BGPPeer that does not exist. The other peers are served.
    ///
    /// Action: Create the BGPPeer, or remove the name.
    UnknownPeer(Vec<&'a str>),
    /// An aggregation length is shorter than the widest network of a pool, which is not announced.
    ///
    /// A prefix of `length` bits would contain addresses outside the pool; `shortest` is the
    /// shortest length of a prefix without such addresses.
    ///
    /// Action: Write the length in the message.
    TooWide {
        family: Family,
        length: u8,
        pool: &'a str,
        shortest: u8,
    },
    /// An older BGPAdvertisement of the same prefixes and routers has another `localPref`, `med` or
    /// `asPathPrepend`, and takes precedence.
    ///
    /// Action: Write the same values in both, or select other pools, peers or nodes.
    Conflict {
        fields: Vec<&'static str>,
        older: &'a str,
    },
}

impl Message for BgpMessage<'_> {
    fn status(&self) -> ConditionStatus {
        matches!(self, Self::Valid).into()
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Valid => VALID,
            Self::Problem(problem) => match problem {
                BgpAdvertisementProblem::Length { .. }
                | BgpAdvertisementProblem::SelectorsWithAggregation => "BadLength",
                BgpAdvertisementProblem::DuplicateCommunity(_) => "BadCommunity",
                BgpAdvertisementProblem::Selector(_) => BAD_SELECTOR,
                BgpAdvertisementProblem::Unreadable(_) => UNREADABLE,
            },
            Self::UnknownCommunity(_) => "UnknownCommunity",
            Self::UnknownPool(_) => "UnknownPool",
            Self::UnknownPeer(_) => "UnknownPeer",
            Self::TooWide { .. } => "TooWide",
            Self::Conflict { .. } => "Conflict",
        }
    }
}

impl Display for BgpMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("the selected addresses are announced"),
            Self::Problem(problem) => problem.fmt(f),
            Self::UnknownCommunity(names) => write!(
                f,
                "spec.communities: no Community defines {}, so this advertisement announces \
                 nothing: define the name, or remove it",
                FirstNames(names)
            ),
            Self::UnknownPool(names) => write!(f, "{}", UnknownPools(names)),
            Self::UnknownPeer(names) => write!(
                f,
                "spec.peers: BGPPeer {} does not exist: create it, or remove the name. The other \
                 peers are served",
                FirstNames(names)
            ),
            Self::TooWide { family, length, pool, shortest } => {
                let field = match family {
                    Family::V4 => "aggregationLength",
                    Family::V6 => "aggregationLengthV6",
                };
                write!(
                    f,
                    "spec.{field}: a prefix of {length} bits is wider than IPAddressPool {pool} \
                     and would attract traffic for other addresses, so the pool is not announced: \
                     write {shortest} or more"
                )
            }
            Self::Conflict { fields, older } => write!(
                f,
                "{}: BGPAdvertisement {older}, which is older, announces the same prefixes with \
                 another value, and takes precedence for peers of both: write the same value, or \
                 select other pools, peers or nodes",
                fields.join(", ")
            ),
        }
    }
}

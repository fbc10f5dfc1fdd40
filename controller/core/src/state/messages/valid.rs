//! Messages of the condition `Valid` of an L2Advertisement and a Community. Pure.

use std::fmt::{self, Display};

use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::{BfdProfileProblem, CommunityProblem, L2AdvertisementProblem};

use super::{BAD_SELECTOR, FirstNames, Message, UNREADABLE, UnknownPools, VALID};

/// The content of an L2Advertisement's condition `Valid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum L2Message<'a> {
    Valid,
    Problem(&'a L2AdvertisementProblem),
    /// `spec.ipAddressPools` names a pool that does not exist. The other pools are announced.
    ///
    /// Action: Create the pool, or remove the name.
    UnknownPool(Vec<&'a str>),
    /// `spec.interfaces` names an interface that no speaker uses. The others are used.
    ///
    /// Action: Correct the name.
    UnknownInterface(Vec<&'a str>),
}

impl Message for L2Message<'_> {
    fn status(&self) -> ConditionStatus {
        matches!(self, Self::Valid).into()
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Valid => VALID,
            Self::Problem(L2AdvertisementProblem::Selector(_)) => BAD_SELECTOR,
            Self::Problem(L2AdvertisementProblem::Unreadable(_)) => UNREADABLE,
            Self::UnknownPool(_) => "UnknownPool",
            Self::UnknownInterface(_) => "UnknownInterface",
        }
    }
}

impl Display for L2Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("the selected addresses are announced"),
            Self::Problem(problem) => problem.fmt(f),
            Self::UnknownPool(names) => write!(f, "{}", UnknownPools(names)),
            Self::UnknownInterface(names) => write!(
                f,
                "spec.interfaces: no speaker uses the interface {}: correct the name. `kubectl get \
                 fspeaker -A -o yaml` lists the interfaces; ports of a bridge or bond are not used",
                FirstNames(names)
            ),
        }
    }
}

/// The content of a Community's condition `Valid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum CommunityMessage<'a> {
    Valid,
    Problem(&'a CommunityProblem),
    /// A Community whose own name sorts before defines the same name, and takes precedence.
    ///
    /// Action: Rename one of them.
    Duplicate {
        name: &'a str,
        owner: &'a str,
    },
}

impl Message for CommunityMessage<'_> {
    fn status(&self) -> ConditionStatus {
        matches!(self, Self::Valid).into()
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Valid => VALID,
            Self::Duplicate { .. } => "DuplicateName",
            Self::Problem(problem) => match problem {
                CommunityProblem::MissingName | CommunityProblem::DuplicateName(_) => "BadName",
                CommunityProblem::Value { .. } => "BadValue",
                CommunityProblem::Unreadable(_) => UNREADABLE,
            },
        }
    }
}

impl Display for CommunityMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("BGPAdvertisements can use these names"),
            Self::Problem(problem) => problem.fmt(f),
            Self::Duplicate { name, owner } => write!(
                f,
                "spec.communities: name {name:?} is already defined by Community {owner}, which \
                 takes precedence: rename one"
            ),
        }
    }
}

/// The content of a BFDProfile's condition `Valid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum ProfileMessage<'a> {
    Valid,
    Problem(&'a BfdProfileProblem),
}

impl Message for ProfileMessage<'_> {
    fn status(&self) -> ConditionStatus {
        matches!(self, Self::Valid).into()
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Valid => VALID,
            Self::Problem(problem) => match problem {
                BfdProfileProblem::Range { .. } => "BadTime",
                BfdProfileProblem::Unsupported(_) => "Unsupported",
                BfdProfileProblem::Unreadable(_) => UNREADABLE,
            },
        }
    }
}

impl Display for ProfileMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("BGPPeers can use this profile"),
            Self::Problem(problem) => problem.fmt(f),
        }
    }
}

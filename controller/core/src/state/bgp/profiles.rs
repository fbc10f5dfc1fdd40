//! Computes the condition `Valid` of BFDProfiles, and has its messages. Pure functions; called by
//! the state.

use std::fmt::{self, Display};

use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::{BfdProfile, BfdProfileProblem};

use super::super::custom_resources::{StatusResource, Validity};
use super::super::messages::{Message, UNREADABLE, VALID};
use crate::desired::{CustomResourceStatus, ValidStatus};

impl StatusResource for BfdProfile {
    type StatusInputs<'a> = ();

    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self {
        Self {
            name,
            generation: before.map_or(0, |before| before.generation),
            timers: Err(BfdProfileProblem::Unreadable(why)),
            status: before.map(|before| before.status.clone()).unwrap_or_default(),
        }
    }

    fn status(&self, _: &()) -> Option<CustomResourceStatus> {
        profile_status(self).map(Self::valid)
    }
}

/// Returns the status to write to a BFDProfile; `None` if the current status is up to date.
pub(super) fn profile_status(profile: &BfdProfile) -> Option<ValidStatus> {
    let message = match &profile.timers {
        Ok(_) => ProfileMessage::Valid,
        Err(problem) => ProfileMessage::Problem(problem),
    };
    profile.changed_validity(&message)
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

//! Computes the condition `Valid` of BFDProfiles. Pure functions; called by the state.

use ferrolb_proto::facts::{BfdProfile, BfdProfileProblem};

use super::super::custom_resources::{StatusResource, Validity};
use super::super::messages::valid::ProfileMessage;
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

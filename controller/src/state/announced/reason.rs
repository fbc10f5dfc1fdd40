//! The reasons of the condition `ferrolb.io/Announced`. Plain values; `docs/reasons.md` explains each.

use ferrolb_proto::api::Truth;
use ferrolb_proto::facts::ConditionKind;

use crate::state::service::Entry;

/// Why an address is not announced, the worst first. Its name is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) enum Reason {
    AddressConflict,
    KernelAnswers,
    NoDataPath,
    NoEndpoints,
    NoAdvertisement,
    NoCandidateNode,
    NoSession,
    SpeakersDeaf,
    NoSpeaker,
    Pending,
    NotObserved,
    Announced,
}

impl Reason {
    const ALL: [Self; 12] = [
        Self::AddressConflict,
        Self::KernelAnswers,
        Self::NoDataPath,
        Self::NoEndpoints,
        Self::NoAdvertisement,
        Self::NoCandidateNode,
        Self::NoSession,
        Self::SpeakersDeaf,
        Self::NoSpeaker,
        Self::Pending,
        Self::NotObserved,
        Self::Announced,
    ];

    pub(in crate::state) const fn name(self) -> &'static str {
        match self {
            Self::AddressConflict => "AddressConflict",
            Self::KernelAnswers => "KernelAnswers",
            Self::NoDataPath => "NoDataPath",
            Self::NoEndpoints => "NoEndpoints",
            Self::NoAdvertisement => "NoAdvertisement",
            Self::NoCandidateNode => "NoCandidateNode",
            Self::NoSession => "NoSession",
            Self::SpeakersDeaf => "SpeakersDeaf",
            Self::NoSpeaker => "NoSpeaker",
            Self::Pending => "Pending",
            Self::NotObserved => "NotObserved",
            Self::Announced => "Announced",
        }
    }

    pub(super) const fn status(self) -> Truth {
        match self {
            Self::Announced => Truth::True,
            Self::NotObserved => Truth::Unknown,
            Self::AddressConflict
            | Self::KernelAnswers
            | Self::NoDataPath
            | Self::NoEndpoints
            | Self::NoAdvertisement
            | Self::NoCandidateNode
            | Self::NoSession
            | Self::SpeakersDeaf
            | Self::NoSpeaker
            | Self::Pending => Truth::False,
        }
    }

    /// The reason that a Service's condition has, or is about to have; none: no condition, or one of another version.
    pub(in crate::state) fn of(entry: &Entry) -> Option<Self> {
        let decided = entry.announced.as_ref().map(|condition| &*condition.reason);
        let written = entry.service.condition(ConditionKind::Announced).map(|condition| &*condition.reason);
        let name = decided.or(written)?;
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

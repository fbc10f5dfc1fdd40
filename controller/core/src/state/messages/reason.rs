//! The reasons of the condition `ferrolb.io/Announced`. Plain values;
//! `docs/reference/conditions.md` explains each.

use ferrolb_proto::api::ConditionStatus;

/// Reasons of the condition `ferrolb.io/Announced`, the worst first. The name of each variant is
/// the text of the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) enum Reason {
    AddressConflict,
    KernelAnswers,
    NotAnnouncedIPModeProxy,
    NoEndpoints,
    NoAdvertisement,
    NoCandidateNode,
    NoSession,
    SpeakersIsolated,
    SpeakersNotRunning,
    NoSpeaker,
    Pending,
    Unobservable,
    Announced,
}

impl Reason {
    const ALL: [Self; 13] = [
        Self::AddressConflict,
        Self::KernelAnswers,
        Self::NotAnnouncedIPModeProxy,
        Self::NoEndpoints,
        Self::NoAdvertisement,
        Self::NoCandidateNode,
        Self::NoSession,
        Self::SpeakersIsolated,
        Self::SpeakersNotRunning,
        Self::NoSpeaker,
        Self::Pending,
        Self::Unobservable,
        Self::Announced,
    ];

    pub(in crate::state) const fn name(self) -> &'static str {
        match self {
            Self::AddressConflict => "AddressConflict",
            Self::KernelAnswers => "KernelAnswers",
            Self::NotAnnouncedIPModeProxy => "NotAnnouncedIPModeProxy",
            Self::NoEndpoints => "NoEndpoints",
            Self::NoAdvertisement => "NoAdvertisement",
            Self::NoCandidateNode => "NoCandidateNode",
            Self::NoSession => "NoSession",
            Self::SpeakersIsolated => "SpeakersIsolated",
            Self::SpeakersNotRunning => "SpeakersNotRunning",
            Self::NoSpeaker => "NoSpeaker",
            Self::Pending => "Pending",
            Self::Unobservable => "Unobservable",
            Self::Announced => "Announced",
        }
    }

    pub(in crate::state) const fn status(self) -> ConditionStatus {
        match self {
            Self::Announced => ConditionStatus::True,
            Self::SpeakersNotRunning | Self::Unobservable => ConditionStatus::Unknown,
            Self::AddressConflict
            | Self::KernelAnswers
            | Self::NotAnnouncedIPModeProxy
            | Self::NoEndpoints
            | Self::NoAdvertisement
            | Self::NoCandidateNode
            | Self::NoSession
            | Self::SpeakersIsolated
            | Self::NoSpeaker
            | Self::Pending => ConditionStatus::False,
        }
    }

    /// Returns the reason with a name; `None` if this version does not define it.
    pub(in crate::state) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

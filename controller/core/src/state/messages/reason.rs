//! The reasons of the condition `ferrolb.io/Announced`. Plain values;
//! `docs/reference/conditions.md` has their doc comments.

use ferrolb_proto::api::ConditionStatus;

/// Reasons of the condition `ferrolb.io/Announced`, the worst first. The name of each variant is
/// the text of the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) enum Reason {
    /// A foreign host replies for the address ([IP
    /// conflict](docs/reference/conditions.md#address-conflicts)).
    ///
    /// Action: Remove the address from that host, or exclude it from the pool.
    AddressConflict,
    /// The [kernel of another node](docs/reference/conditions.md#replies-of-a-kernel) replies for
    /// the address.
    ///
    /// Action: Follow the message.
    KernelAnswers,
    /// `ipMode` is `Proxy`: kube-proxy accepts no traffic for the address.
    ///
    /// Action: None if intended; otherwise change [the mode](docs/configure/ip-mode.md).
    NotAnnouncedIPModeProxy,
    /// No endpoint is [eligible](docs/configure/health.md#eligible-endpoints), or only endpoints of
    /// the other family are.
    ///
    /// Action: Check the pods and `spec.selector`; add the family to the pods, or set
    /// `ipFamilyPolicy: SingleStack`.
    NoEndpoints,
    /// No valid advertisement selects the pool and the Service, or no pool contains the address.
    ///
    /// Action: Create an advertisement or a pool, or change one.
    NoAdvertisement,
    /// No node is eligible ([causes](docs/reference/conditions.md#causes-of-nocandidatenode)).
    ///
    /// Action: Follow the message.
    NoCandidateNode,
    /// No eligible node has a session with a router that receives the address.
    ///
    /// Action: See [`Established`](docs/reference/conditions.md#bgppeers-condition-established) of
    /// the BGPPeer.
    NoSession,
    /// The speakers of all eligible nodes receive nothing. Each announces nevertheless after 1.1 s
    /// at the latest.
    ///
    /// Action: Check cables, switch ports and VLANs.
    SpeakersIsolated,
    /// `Unknown`: the speakers that announced the address do not run, and no other one announces
    /// it.
    ///
    /// Action: Check the DaemonSet `speaker`.
    SpeakersNotRunning,
    /// No eligible node has a speaker, and none has announced the address.
    ///
    /// Action: Check the DaemonSet `speaker`.
    NoSpeaker,
    /// No speaker has claimed the address yet: it has just started, has no key, or [announces
    /// nothing](docs/configure/l2.md#interfaces).
    ///
    /// Action: Wait some seconds, then check the logs of the speakers.
    Pending,
    /// `Unknown`: with another `--api-group`, speakers write no SpeakerStatus.
    ///
    /// Action: Request [`/state`](docs/reference/admin-endpoint.md) of the speakers.
    Unobservable,
    /// `True`: nodes announce the addresses.
    ///
    /// Action: None, except for [two owners](docs/reference/conditions.md#two-owners).
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

//! Issues of a BGP session: why the session is not established, or how it differs from its BGPPeer.
//! Plain values; the BGP driver and the plan create them, and SpeakerStatus publishes them.

use ferrolb_proto::api::{PASSWORD_UNAVAILABLE, SpeakerIssue};
use ferrolb_proto::bgp::BfdUnavailable;

/// Number of prefixes that a peer may send; more of them are an issue. gobgpd keeps all of them in
/// memory: 50,000 take about 40 MB.
pub const PREFIXES_MAX: u64 = 50_000;

/// Issue of one session. `Display` renders its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionIssue {
    /// The peer sent a NOTIFICATION in an established session.
    #[error(
        "the router ended the session and has not opened a new one: check its configuration and \
         its log"
    )]
    EndedByRouter,
    /// This node sent a NOTIFICATION in an established session.
    #[error(
        "this node ended the session, because the hold time expired or BFD reported the router as \
         down: check the network to the router"
    )]
    EndedByNode,
    /// The peer replied to this node's OPEN with a NOTIFICATION.
    #[error(
        "the router rejected or ended the session: check that it expects AS {own_asn} from this \
         node"
    )]
    RejectedByRouter {
        /// The AS in this node's OPEN.
        own_asn: u32,
    },
    /// The first bytes from the peer were not a BGP OPEN.
    #[error(
        "the host on port {port} did not send a BGP OPEN: check that spec.peerAddress and \
         spec.peerPort are those of a BGP router"
    )]
    NotBgp {
        /// The TCP port of the peer.
        port: u32,
    },
    /// This node replied to the peer's OPEN with a NOTIFICATION.
    #[error(
        "this node rejected the router's OPEN, or the hold time expired: check that the router's \
         AS is {peer_asn}"
    )]
    OpenRejected {
        /// The AS that the BGPPeer expects of the peer.
        peer_asn: u32,
    },
    /// The peer accepts the TCP connection and sends nothing.
    #[error(
        "the router accepts the connection and sends no OPEN: check that it knows this node, and \
         that TTL security is configured at both ends or at neither"
    )]
    NoOpen,
    /// The TCP connection cannot be established.
    #[error(
        "no connection to the router: check the route to it, and that it listens on port {port}{}",
        if *.password { " with this password" } else { " without a password" }
    )]
    NoConnection {
        /// The TCP port of the peer.
        port: u32,
        /// Whether the BGPPeer has a password. A connection attempt with a wrong password gets no
        /// reply either (RFC 2385).
        password: bool,
    },
    /// Another program on this node uses the UDP port of BFD.
    #[error(
        "BFD is not up: another program on this node uses UDP port 3784. Stop the BFD of that \
         program (FRR's bfdd, BIRD)"
    )]
    BfdPortInUse,
    /// No BFD packet was received.
    #[error(
        "BFD is not up: no packets from the router. Check that BFD is enabled there, that UDP port \
         3784 is open, and that no other program on this node uses it (ss -ulnp)"
    )]
    BfdNoPackets,
    /// BFD packets arrive from the peer, but the BFD session does not come up.
    #[error(
        "BFD is not up: the router receives no packets from this node. Check that UDP port 3784 is \
         open there"
    )]
    BfdOneWay,
    /// The peer sends more than [`PREFIXES_MAX`] prefixes. The message omits the exact number,
    /// because each change of the message is a write to the API.
    #[error(
        "the router has sent more than {PREFIXES_MAX} prefixes, which gobgpd keeps in memory and \
         FerroLB does not use: configure the router to send none (docs/bgp.md)"
    )]
    TooManyPrefixes,
    /// The BGPPeer requires a peer in another AS than this node's, and the peer has this node's AS.
    #[error(
        "the router has the AS of this node, {0}: set spec.dynamicASN to internal, or set \
         spec.peerASN"
    )]
    OwnAsn(u32),
    /// gobgpd rejected the session.
    #[error("gobgpd rejected the session: {0}")]
    RejectedByGobgp(Box<str>),
    /// gobgpd rejected the session's BFD configuration.
    #[error("BFD is off: gobgpd rejected it: {0}")]
    BfdRejectedByGobgp(Box<str>),
    /// gobgpd cannot be used, so no session of this node can be established.
    #[error("{0}")]
    GobgpUnavailable(Box<str>),
    /// `spec.passwordSecret` names a Secret that does not exist or holds no usable password.
    #[error("spec.passwordSecret: \
             {why}{}", if *.continues { "; until then the session continues \
                                                              with the last \
                                                              password" } else { "" })]
    PasswordUnavailable {
        /// Name of the Secret, and why it is unusable.
        why: Box<str>,
        /// Whether the session continues with the Secret's most recent password.
        continues: bool,
    },
    /// `spec.bfdProfile` cannot be used.
    #[error("{0}")]
    BfdProfile(BfdUnavailable),
}

/// Returns the issue of a node whose routes need more than `most` sets of attributes, so that
/// `left_out` prefixes are advertised to no router. Returns none if `left_out` is 0.
#[must_use]
pub fn too_many_attributes(left_out: usize, most: usize) -> Option<SpeakerIssue> {
    let message = format!(
        "{left_out} prefixes are not advertised: the BGPAdvertisements result in more than {most} \
         different sets of attributes on this node, counted once for all peers that receive the \
         same. Use the same attributes for more prefixes or more peers"
    );
    (left_out > 0).then(|| SpeakerIssue { reason: "TooManyAttributes".to_owned(), message })
}

impl SessionIssue {
    /// Returns the reason that identifies the variant in SpeakerStatus.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::EndedByRouter => "EndedByRouter",
            Self::EndedByNode => "EndedByNode",
            Self::RejectedByRouter { .. } => "RejectedByRouter",
            Self::NotBgp { .. } => "NotBGP",
            Self::OpenRejected { .. } => "OpenRejected",
            Self::NoOpen => "NoOpen",
            Self::NoConnection { .. } => "NoConnection",
            Self::BfdPortInUse => "BFDPortInUse",
            Self::BfdNoPackets => "BFDNoPackets",
            Self::BfdOneWay => "BFDOneWay",
            Self::TooManyPrefixes => "TooManyPrefixes",
            Self::OwnAsn(_) => "OwnASN",
            Self::RejectedByGobgp(_) => "RejectedByGoBGP",
            Self::BfdRejectedByGobgp(_) => "BFDRejectedByGoBGP",
            Self::GobgpUnavailable(_) => "GoBGPUnavailable",
            Self::PasswordUnavailable { .. } => PASSWORD_UNAVAILABLE,
            Self::BfdProfile(BfdUnavailable::MultiHop) => "Unsupported",
            Self::BfdProfile(BfdUnavailable::Unknown(_)) => "UnknownBFDProfile",
            Self::BfdProfile(BfdUnavailable::Profile { .. }) => "BadBFDProfile",
        }
    }

    /// Returns the issue in the form of SpeakerStatus.
    #[must_use]
    pub fn status(&self) -> SpeakerIssue {
        SpeakerIssue { reason: self.reason().to_owned(), message: self.to_string() }
    }
}

#[cfg(test)]
mod tests;

//! Issues that SpeakerStatus publishes: why a BGP session is not established, or how it differs
//! from its BGPPeer; which routes the node does not advertise. Plain values, which the machine for
//! gobgpd creates.

use ferrolb_core::bgp::BfdUnavailable;
use ferrolb_proto::api::{PASSWORD_UNAVAILABLE, SpeakerIssue};
use ferrolb_proto::facts::PasswordProblem;

/// Number of prefixes that a peer may send without causing an issue. gobgpd keeps all received
/// prefixes in memory: 50,000 take about 40 MB.
pub const PREFIXES_MAX: u64 = 50_000;

/// Issue of one session. `Display` renders its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionIssue {
    /// The router ended the established session.
    ///
    /// It sent a NOTIFICATION.
    ///
    /// Action: Check the router's configuration and log.
    #[error(
        "the router ended the session and has not opened a new one: check its configuration and \
         its log"
    )]
    EndedByRouter,
    /// The hold time of the established session expired, or BFD reported the router as down.
    ///
    /// It sent a NOTIFICATION.
    ///
    /// Action: Check the network to the router.
    #[error(
        "this node ended the session, because the hold time expired or BFD reported the router as \
         down: check the network to the router"
    )]
    EndedByNode,
    /// The router replied to this node's OPEN with a NOTIFICATION.
    ///
    /// Action: Check the AS of this node in the router's configuration.
    #[error(
        "the router rejected or ended the session: check that it expects AS {own_asn} from this \
         node"
    )]
    RejectedByRouter {
        /// The AS in this node's OPEN.
        own_asn: u32,
    },
    /// The host on that port did not send a BGP OPEN.
    ///
    /// Action: Correct `spec.peerAddress` or `spec.peerPort`.
    #[error(
        "the host on port {port} did not send a BGP OPEN: check that spec.peerAddress and \
         spec.peerPort are those of a BGP router"
    )]
    NotBgp {
        /// The TCP port of the peer.
        port: u32,
    },
    /// This node rejected the router's OPEN, or the hold time expired.
    ///
    /// It sent a NOTIFICATION.
    ///
    /// Action: Correct `spec.peerASN`.
    #[error(
        "this node rejected the router's OPEN, or the hold time expired: check that the router's \
         AS is {peer_asn}, or correct spec.peerASN"
    )]
    OpenRejected {
        /// The AS that the BGPPeer expects of the peer.
        peer_asn: u32,
    },
    /// The router accepts the connection and sends no OPEN.
    ///
    /// Action: Configure this node as a neighbor there, with `spec.myASN`. Check TTL security at
    /// both ends.
    #[error(
        "the router accepts the connection and sends no OPEN: check that it knows this node with \
         the AS {own_asn} (spec.myASN), and that TTL security is configured at both ends or at \
         neither"
    )]
    NoOpen {
        /// The AS of this node in the session.
        own_asn: u32,
    },
    /// No TCP connection exists. With a wrong or missing password, the router does not reply.
    ///
    /// Action: Check the route, the port, and the password.
    #[error(
        "no connection to the router: check the route to it, and that it listens on port {port}{}",
        if *.password { " with this password" } else { " without a password" }
    )]
    NoConnection {
        /// The TCP port of the peer.
        port: u32,
        /// True if the BGPPeer has a password. A connection attempt with a wrong password gets no
        /// reply either (RFC 2385).
        password: bool,
    },
    /// Another process on the node uses UDP port 3784.
    ///
    /// Action: Stop the BFD of that process.
    #[error(
        "BFD is not up: another program on this node uses UDP port 3784. Stop the BFD of that \
         program (FRR's bfdd, BIRD)"
    )]
    BfdPortInUse,
    /// The router sends no BFD packets.
    ///
    /// Action: Enable BFD there, and open UDP port 3784.
    #[error(
        "BFD is not up: no packets from the router. Check that BFD is enabled there, that UDP port \
         3784 is open, and that no other program on this node uses it (ss -ulnp)"
    )]
    BfdNoPackets,
    /// The router receives no BFD packets from this node.
    ///
    /// Its packets arrive, but the BFD session does not come up.
    ///
    /// Action: Open UDP port 3784 there.
    #[error(
        "BFD is not up: the router receives no packets from this node. Check that UDP port 3784 is \
         open there"
    )]
    BfdOneWay,
    /// The router has sent more than 50,000 prefixes.
    ///
    /// The message omits the exact number, because each change of the message is a write to the
    /// API.
    ///
    /// Action: Configure the router to [send none](docs/configure/bgp.md#routes-from-the-router).
    #[error(
        "the router has sent more than {PREFIXES_MAX} prefixes, which gobgpd keeps in memory and \
         FerroLB does not use: configure the router to send none (docs/configure/bgp.md)"
    )]
    TooManyPrefixes,
    /// The router has the AS of this node, and `spec.dynamicASN` is `external`.
    ///
    /// Action: Set `spec.dynamicASN` to `internal`, or set `spec.peerASN`.
    #[error(
        "the router has the AS of this node, {0}: set spec.dynamicASN to internal, or set \
         spec.peerASN"
    )]
    OwnAsn(u32),
    /// gobgpd rejected the session.
    ///
    /// Action: Follow the message of gobgpd.
    #[error(
        "gobgpd rejected the session: {0}. Change the BGPPeer, or see the log of gobgpd on this \
         node"
    )]
    RejectedByGobgp(Box<str>),
    /// gobgpd rejected the BFD settings.
    ///
    /// Action: Follow the message of gobgpd.
    #[error(
        "BFD is off: gobgpd rejected it: {0}. Change the BFDProfile, or see the log of gobgpd on \
         this node"
    )]
    BfdRejectedByGobgp(Box<str>),
    /// gobgpd does not run, does not respond, or is too old.
    ///
    /// Action: Check the pods of the DaemonSet `gobgpd`.
    #[error("{0}")]
    GobgpUnavailable(Box<str>),
    /// The Secret holds no usable password. An open session keeps the last one.
    ///
    /// Action: [Create or correct the Secret](docs/configure/bgp.md#password).
    #[error(
        "spec.passwordSecret: Secret {secret} {problem}{}",
        if *.continues { "; until then the session continues with the last password" } else { "" }
    )]
    PasswordUnavailable {
        /// Name of the Secret.
        secret: Box<str>,
        /// Why the Secret is unusable.
        problem: PasswordProblem,
        /// True if the session continues with the Secret's most recent password.
        continues: bool,
    },
    /// `spec.bfdProfile` cannot be used.
    #[error("{0}")]
    Bfd(BfdUnavailable),
}

/// Issue of the whole node. `Display` renders its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeIssue {
    /// Some prefixes are not advertised: BGPAdvertisements result in more than 1,000 sets of
    /// attributes.
    ///
    /// Action: Use the same attributes for more prefixes or peers.
    #[error(
        "{prefixes} prefixes are not advertised: the BGPAdvertisements result in more than {limit} \
         different sets of attributes on this node, counted once for all peers that receive the \
         same. Use the same attributes for more prefixes or more peers"
    )]
    TooManyAttributes {
        /// Number of prefixes that are not advertised.
        prefixes: usize,
        /// Maximum number of different sets of attributes on one node.
        limit: usize,
    },
}

impl NodeIssue {
    /// Returns the reason that identifies the variant in SpeakerStatus.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooManyAttributes { .. } => "TooManyAttributes",
        }
    }

    /// Returns the issue in the form of SpeakerStatus.
    #[must_use]
    pub fn status(&self) -> SpeakerIssue {
        SpeakerIssue { reason: self.reason().to_owned(), message: self.to_string() }
    }
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
            Self::NoOpen { .. } => "NoOpen",
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
            Self::Bfd(why) => why.reason(),
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

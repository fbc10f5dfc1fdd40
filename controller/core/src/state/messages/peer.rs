//! Messages of the conditions `Valid` and `Established` of a BGPPeer. Pure.

use std::fmt::{self, Display};

use ferrolb_core::bgp::{BfdUnavailable, PeerConflict};
use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::BgpPeerProblem;

use super::{FirstNames, Message, VALID};

/// The content of a BGPPeer's condition `Valid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum PeerMessage<'a> {
    Valid,
    /// The BGPPeer is valid, but combines graceful restart and BFD, which can work against each
    /// other.
    GracefulRestartWithBfd,
    Problem(&'a BgpPeerProblem),
    /// On some node, an older BGPPeer prevents the session of this one.
    Conflict(&'a PeerConflict),
    /// `node` is the first node that cannot use the Secret with the password; `why` is the cause.
    Secret {
        node: &'a str,
        why: &'a str,
    },
    /// Sessions are established, but without the BFD that the BGPPeer requests.
    Bfd(BfdUnavailable),
}

impl Message for PeerMessage<'_> {
    fn status(&self) -> ConditionStatus {
        matches!(self, Self::Valid | Self::GracefulRestartWithBfd).into()
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Valid => VALID,
            Self::GracefulRestartWithBfd => "GracefulRestartWithBFD",
            Self::Problem(problem) => problem_reason(problem),
            Self::Conflict(_) => "Conflict",
            Self::Secret { .. } => "BadSecret",
            Self::Bfd(BfdUnavailable::MultiHop) => "Unsupported",
            Self::Bfd(BfdUnavailable::Unknown(_)) => "UnknownBFDProfile",
            Self::Bfd(BfdUnavailable::Profile { .. }) => "BadBFDProfile",
        }
    }
}

const fn problem_reason(problem: &BgpPeerProblem) -> &'static str {
    match problem {
        BgpPeerProblem::MyAsn | BgpPeerProblem::PeerAsn => "BadASN",
        BgpPeerProblem::Location
        | BgpPeerProblem::Address { .. }
        | BgpPeerProblem::SourceFamily => "BadAddress",
        BgpPeerProblem::Duration { .. } | BgpPeerProblem::Keepalive => "BadTime",
        BgpPeerProblem::MultiHop | BgpPeerProblem::MultiHopWithTtlSecurity => "BadHops",
        BgpPeerProblem::TwoPasswords | BgpPeerProblem::PasswordTooLong => "BadPassword",
        BgpPeerProblem::SecretNamespace(_) => "BadSecret",
        BgpPeerProblem::Vrf => "Unsupported",
        BgpPeerProblem::Selector(_) => "BadSelector",
        BgpPeerProblem::Unreadable(_) => "Unreadable",
    }
}

impl Display for PeerMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("nodes can establish sessions with this router"),
            Self::GracefulRestartWithBfd => f.write_str(
                "spec.enableGracefulRestart and spec.bfdProfile can conflict: BFD ends with \
                 gobgpd, and the router may then drop the routes at once (BIRD without `bfd \
                 graceful` does, FRR does not). Check the router, or remove one of them",
            ),
            Self::Problem(problem) => problem.fmt(f),
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::Secret { node, why } => write!(f, "{why} (reported by node {node})"),
            Self::Bfd(fault) => fault.fmt(f),
        }
    }
}

/// A node, and the reason why it has no session or no BFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) struct NodeSession<'a> {
    pub(in crate::state) node: &'a str,
    pub(in crate::state) why: SessionProblem<'a>,
}

/// Reason why a node has no session or no BFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum SessionProblem<'a> {
    /// The message that the node's speaker reports; empty if the speaker has not reported one yet.
    Reported(&'a str),
    /// The SpeakerStatus of the node is stale.
    SpeakerNotRunning,
}

/// The content of a BGPPeer's condition `Established`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum SessionMessage<'a> {
    Established,
    /// All selected nodes have a session, but BFD is down on these nodes. The list is not empty.
    NoBfd(Vec<NodeSession<'a>>),
    /// These nodes have no session. The list is not empty.
    NoSession(Vec<NodeSession<'a>>),
}

impl Message for SessionMessage<'_> {
    fn status(&self) -> ConditionStatus {
        matches!(self, Self::Established | Self::NoBfd(_)).into()
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Established => "Established",
            Self::NoBfd(_) => "NoBFD",
            Self::NoSession(_) => "NoSession",
        }
    }
}

impl Display for SessionMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALL: &str = "session established on all selected nodes";
        let names = |nodes: &[NodeSession<'_>]| {
            FirstNames(&nodes.iter().map(|node| node.node).collect::<Vec<_>>()).to_string()
        };
        match self {
            Self::Established => f.write_str(ALL),
            Self::NoBfd(nodes) => {
                write!(f, "{ALL}, but BFD is not up on {}{}", names(nodes), FirstCause(nodes))
            }
            Self::NoSession(nodes) => {
                write!(f, "no session on {}{}", names(nodes), FirstCause(nodes))
            }
        }
    }
}

/// Renders the issue on the first of several nodes, as an example.
struct FirstCause<'a>(&'a [NodeSession<'a>]);

impl Display for FirstCause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(NodeSession { node, why }) = self.0.first() else { return Ok(()) };
        match why {
            SessionProblem::Reported("") => {
                write!(f, "; {node}: the speaker has not reported a cause yet")
            }
            SessionProblem::Reported(why) => write!(f, "; {node}: {why}"),
            SessionProblem::SpeakerNotRunning => {
                write!(f, "; {node}: its speaker does not run. See `kubectl describe node {node}`")
            }
        }
    }
}

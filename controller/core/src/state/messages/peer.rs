//! Messages of the conditions `Valid` and `Established` of a BGPPeer. Pure.

use std::fmt::{self, Display};

use ferrolb_core::bgp::{BfdUnavailable, PeerConflict};
use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::BgpPeerProblem;

use super::{BAD_SELECTOR, FirstNames, Message, UNREADABLE, VALID};

/// The content of a BGPPeer's condition `Valid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum PeerMessage<'a> {
    Valid,
    /// `True`: graceful restart and BFD are both set, and [can
    /// conflict](docs/configure/bfd.md#bfd-and-graceful-restart).
    ///
    /// Action: Check that the router keeps the routes of a gobgpd that is replaced, or remove one
    /// of them.
    GracefulRestartWithBfd,
    Problem(&'a BgpPeerProblem),
    /// On some node, an older BGPPeer excludes this one: both have the same router, or different
    /// values of `spec.myASN` or `spec.routerID`.
    ///
    /// Action: Follow the message.
    Conflict(&'a PeerConflict),
    /// A node cannot use the Secret. Its open session continues with the last password.
    ///
    /// `node` is the first such node; `why` is the cause.
    ///
    /// Action: [Create the Secret](docs/configure/bgp.md#password) that the message describes.
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
            Self::Problem(problem) => match problem {
                BgpPeerProblem::MyAsn | BgpPeerProblem::PeerAsn => "BadASN",
                BgpPeerProblem::Location
                | BgpPeerProblem::Address { .. }
                | BgpPeerProblem::SourceFamily => "BadAddress",
                BgpPeerProblem::Duration { .. } | BgpPeerProblem::Keepalive => "BadTime",
                BgpPeerProblem::MultiHop | BgpPeerProblem::MultiHopWithTtlSecurity => "BadHops",
                BgpPeerProblem::TwoPasswords | BgpPeerProblem::PasswordTooLong => "BadPassword",
                BgpPeerProblem::SecretNamespace(_) => "BadSecret",
                BgpPeerProblem::Vrf => "Unsupported",
                BgpPeerProblem::Selector(_) => BAD_SELECTOR,
                BgpPeerProblem::Unreadable(_) => UNREADABLE,
            },
            Self::Conflict(_) => "Conflict",
            Self::Secret { .. } => "BadSecret",
            Self::Bfd(fault) => fault.reason(),
        }
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
    /// `True`: all these nodes have their session.
    ///
    /// Action: None.
    Established,
    /// `True`, but BFD is not up on some nodes, which detect a failed router when the hold time
    /// expires.
    ///
    /// The list is not empty.
    ///
    /// Action: Follow the message: see [BFD](docs/configure/bfd.md).
    NoBfd(Vec<NodeSession<'a>>),
    /// Some nodes have no session; the message contains the cause on the first of them.
    ///
    /// The list is not empty.
    ///
    /// Action: Follow the message. The SpeakerStatus of each other node has its cause.
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

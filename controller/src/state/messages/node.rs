//! Messages of the Events about Nodes that are silent. Pure.

use std::fmt::{self, Display};

use ferrolb_proto::node_failure::NODE_SILENT;
use ferrolb_proto::node_failure::failures::FailuresOutput;

use super::NamesWithCount;
use crate::desired::{Action, NodeFact, NodeNotice, Notice};

/// Maximum number of nodes that a message names.
const NAMED_MAX: usize = 5;

/// A fact about a silent node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) enum NodeMessage {
    /// The node is silent, and its pods are marked.
    Silent(Box<str>),
    /// These nodes are silent at the same time, more than `limit`.
    TooManySilent { nodes: Vec<Box<str>>, limit: usize },
    /// The node replies again.
    Replies(Box<str>),
}

impl From<FailuresOutput> for NodeMessage {
    fn from(output: FailuresOutput) -> Self {
        match output {
            FailuresOutput::Failed(node) => Self::Silent(node),
            FailuresOutput::TooMany { nodes, limit } => Self::TooManySilent { nodes, limit },
            FailuresOutput::Returned(node) => Self::Replies(node),
        }
    }
}

impl NodeMessage {
    /// Returns the reason of the Event.
    pub(in crate::state) const fn reason(&self) -> &'static str {
        match self {
            Self::Silent(_) => NODE_SILENT,
            Self::TooManySilent { .. } => "TooManyNodesSilent",
            Self::Replies(_) => "NodeReplies",
        }
    }

    /// Returns the Event that reports the fact. An Event about several nodes concerns the first
    /// one.
    pub(in crate::state) fn notice(&self) -> NodeNotice {
        let (node, fact) = match self {
            Self::Silent(node) => (node.clone(), NodeFact::Failed),
            Self::TooManySilent { nodes, .. } => {
                (nodes.first().cloned().unwrap_or_default(), NodeFact::Ignored)
            }
            Self::Replies(node) => (node.clone(), NodeFact::Returned),
        };
        let warning = fact != NodeFact::Returned;
        let (reason, message) = (self.reason().into(), self.to_string().into());
        let notice = Notice { warning, action: Action::MarkPods, reason, message };
        NodeNotice { node, fact, notice }
    }
}

impl Display for NodeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(_) => f.write_str(
                "neither the speaker nor the kubelet of this node replies, so its pods behind \
                 Services are marked as not Ready until it replies: check its power and network",
            ),
            Self::TooManySilent { nodes, limit } => write!(
                f,
                "{} do not reply, more than {limit} at the same time, so no pods are marked: check \
                 the network between the nodes",
                NamesWithCount(nodes, NAMED_MAX)
            ),
            Self::Replies(_) => f.write_str(
                "this node replies again: its kubelet sets its pods Ready, and FerroLB restores \
                 those that are still marked after 30 s",
            ),
        }
    }
}

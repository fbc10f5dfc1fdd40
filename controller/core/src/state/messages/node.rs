//! Messages of the Events about Nodes that are silent. Pure.

use std::fmt::{self, Display};

use ferrolb_proto::api::NODE_SILENT;

use super::NamesWithCount;
use crate::desired::{EventAction, NodeNotice, Notice};
use crate::node_failure::failures::FailuresOutput;

/// Maximum number of nodes that a message names.
const NAMED_MAX: usize = 5;

/// A fact about silent nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::state) struct NodeMessage(pub(in crate::state) FailuresOutput);

impl NodeMessage {
    /// Returns the reason of the Event.
    pub(in crate::state) const fn reason(&self) -> &'static str {
        match self.0 {
            FailuresOutput::Failed(_) => NODE_SILENT,
            FailuresOutput::TooMany { .. } => "TooManyNodesSilent",
            FailuresOutput::Returned(_) => "NodeReplies",
        }
    }

    /// Returns the Event that reports the fact. An Event about several nodes concerns the first
    /// one.
    pub(in crate::state) fn into_notice(self) -> NodeNotice {
        let notice = Notice {
            warning: !matches!(self.0, FailuresOutput::Returned(_)),
            action: EventAction::MarkPods,
            reason: self.reason().into(),
            message: self.to_string().into(),
        };
        let node = match &self.0 {
            FailuresOutput::Failed(node) | FailuresOutput::Returned(node) => Some(node),
            FailuresOutput::TooMany { nodes, .. } => nodes.first(),
        };
        NodeNotice { node: node.cloned().unwrap_or_default(), fact: self.0, notice }
    }
}

impl Display for NodeMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            FailuresOutput::Failed(_) => f.write_str(
                "neither the speaker nor the kubelet of this node replies, so its pods behind \
                 Services are marked as not Ready until it replies: check its power and network",
            ),
            FailuresOutput::TooMany { nodes, limit } => write!(
                f,
                "{} do not reply, more than {limit} at the same time, so no pods are marked: check \
                 the network between the nodes",
                NamesWithCount(nodes, NAMED_MAX)
            ),
            FailuresOutput::Returned(_) => f.write_str(
                "this node replies again: its kubelet sets its pods Ready, and FerroLB restores \
                 those that are still marked after 30 s",
            ),
        }
    }
}

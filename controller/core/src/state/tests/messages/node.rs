//! Messages of Events about Nodes.

use crate::node_failure::failures::FailuresOutput;

use super::*;
use crate::state::messages::node::NodeMessage;

#[test]
fn every_fact_about_a_silent_node_has_its_message() {
    let nodes = || vec!["n1".into(), "n2".into()];
    table!(NodeMessage, |message| (message.reason().to_owned(), message.to_string());
        NodeMessage(FailuresOutput::Failed(_)) => [(NodeMessage(FailuresOutput::Failed("n1".into())), "NodeSilent", "neither the speaker nor the kubelet of this node replies, so its pods behind Services are marked as not Ready until it replies: check its power and network")],
        NodeMessage(FailuresOutput::TooMany { .. }) => [(NodeMessage(FailuresOutput::TooMany { nodes: nodes(), limit: 1 }), "TooManyNodesSilent", "n1, n2 do not reply, more than 1 at the same time, so no pods are marked: check the network between the nodes")],
        NodeMessage(FailuresOutput::Returned(_)) => [(NodeMessage(FailuresOutput::Returned("n1".into())), "NodeReplies", "this node replies again: its kubelet sets its pods Ready, and FerroLB restores those that are still marked after 30 s")],
    );
}

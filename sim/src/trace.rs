//! Text of frames in the trace of a run.

use std::net::IpAddr;

use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Claim, ClaimSetSummary, Frame, Stretch};

use super::node::SimNode;

/// Returns the name of the node with this MAC.
pub(super) fn node_name(mac: Mac) -> String {
    format!("n{}", SimNode::index_of(mac))
}

/// Formats a frame.
pub(super) fn describe_frame(frame: &Frame) -> String {
    let list = |addresses: &[IpAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let claim_list = |claims: &[Claim]| {
        let claim = |claim: &Claim| format!("{} ({:.1?})", claim.address, claim.preempt_delay);
        claims.iter().map(claim).collect::<Vec<_>>().join(" ")
    };
    let bound = |bound: Option<IpAddr>| bound.map_or("*".into(), |address| address.to_string());
    let body = match &frame.body {
        Body::Hello { .. } => "HELLO".into(),
        Body::Claim(claims) => format!("CLAIM {}", claim_list(claims)),
        Body::Release { addresses, contested } => {
            format!("RELEASE contested: {contested} {}", list(addresses))
        }
        Body::Doubt(addresses) => format!("DOUBT {}", list(addresses)),
        Body::Challenge { .. } => "CHALLENGE".into(),
        Body::ChallengeReply { .. } => "CHALLENGE REPLY".into(),
        Body::PathReport { report, .. } => format!("{report:?}"),
        Body::NodeWatch(message) => format!("{message:?}"),
        Body::ListRequest => "LIST REQUEST".into(),
        Body::List(Stretch { after, last, claims }) => {
            format!("LIST after {} to {}: {}", bound(*after), bound(*last), claim_list(claims))
        }
    };
    let ClaimSetSummary { counter, count, digest } = frame.claim_set;
    format!("{body} [set {counter}: {count} addresses, {digest:016x}]")
}

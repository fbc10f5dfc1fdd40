//! The command `why`: explains one Service. Pure.

use std::fmt::Write as _;

use ferrolb_proto::controller::state::{AddressExplanation, Explanation, NodeVerdict, Verdict};

use crate::table::table;

/// Page that explains the reasons.
const REASONS: &str = "https://github.com/ferrolb/ferrolb/blob/main/docs/reference/conditions.md#services-condition-ferrolbio";

/// Returns the explanation as text.
#[must_use]
pub fn text(explanation: &Explanation) -> String {
    let row = &explanation.row;
    let warned = if explanation.warnings.is_empty() { "" } else { ", with a warning" };
    let mut text = format!("{}: {}{warned}\n", row.service, row.reason);
    if explanation.assignment.is_empty() {
        text.push_str(
            "FerroLB does not serve this Service: its type is not LoadBalancer, or its class is \
             another one\n",
        );
        return text;
    }
    _ = writeln!(text, "addresses: {}", explanation.assignment);
    for address in &explanation.explained {
        _ = write!(text, "\n{}", address_text(address));
    }
    for warning in &explanation.warnings {
        _ = writeln!(text, "\nwarning: {warning}");
    }
    let is_of_address = explanation.explained.iter().any(|it| it.reason == row.reason);
    let anchor = if is_of_address { "announced" } else { "addressassigned" };
    _ = writeln!(text, "\nreasons: {REASONS}{anchor}");
    text
}

fn address_text(explained: &AddressExplanation) -> String {
    let AddressExplanation { reason, message, nodes, .. } = explained;
    let mut text = format!("{reason}: {message}\n");
    let has =
        |path: fn(&NodeVerdict) -> &Option<Verdict>| nodes.iter().any(|it| path(it).is_some());
    let cell = |verdict: &Option<Verdict>| verdict.as_ref().map(verdict_text).unwrap_or_default();
    let endpoints = |it: &NodeVerdict| it.endpoints.to_string();
    let rows = nodes.iter();
    let rows = match (has(|it| &it.layer2), has(|it| &it.bgp)) {
        (true, true) => table(
            ["NODE", "ENDPOINTS", "LAYER 2", "BGP"],
            rows.map(|it| [it.node.clone(), endpoints(it), cell(&it.layer2), cell(&it.bgp)]),
        ),
        (true, false) => table(
            ["NODE", "ENDPOINTS", "LAYER 2"],
            rows.map(|it| [it.node.clone(), endpoints(it), cell(&it.layer2)]),
        ),
        (false, true) => table(
            ["NODE", "ENDPOINTS", "BGP"],
            rows.map(|it| [it.node.clone(), endpoints(it), cell(&it.bgp)]),
        ),
        (false, false) => String::new(),
    };
    for line in rows.lines() {
        _ = writeln!(text, "  {line}");
    }
    text
}

fn verdict_text(verdict: &Verdict) -> String {
    let with = |text: String, flaws: &[&str]| {
        if flaws.is_empty() { text } else { format!("{text} ({})", flaws.join(", ")) }
    };
    match verdict {
        Verdict::Announces { on, flaws } => with(format!("announces: {}", on.join(", ")), flaws),
        Verdict::Candidate { rank, flaws } => with(format!("candidate, rank {rank}"), flaws),
        Verdict::Ineligible { why } => format!("no: {why}"),
    }
}

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

#[cfg(test)]
mod tests {
    use ferrolb_proto::controller::state::ServiceRow;

    use super::*;
    use crate::golden::golden;

    fn node(node: &str, layer2: Verdict, bgp: Verdict) -> NodeVerdict {
        NodeVerdict { node: node.to_owned(), endpoints: 1, layer2: Some(layer2), bgp: Some(bgp) }
    }

    fn explanation() -> Explanation {
        let on = |name: &str| Verdict::Announces { on: vec![name.to_owned()], flaws: Vec::new() };
        let no = |why: &str| Verdict::Ineligible { why: why.to_owned() };
        let second = Verdict::Candidate { rank: 2, flaws: vec!["draining", "isolated"] };
        let address = "192.168.1.240".parse().unwrap();
        Explanation {
            row: ServiceRow {
                service: "default/web".to_owned(),
                addresses: vec![address],
                pool: Some("lan".to_owned()),
                nodes: vec!["node1".to_owned()],
                since: None,
                reason: "Announced".to_owned(),
                announced: true,
            },
            assignment: "192.168.1.240 from pool lan".to_owned(),
            explained: vec![AddressExplanation {
                address,
                reason: "Announced",
                message: "192.168.1.240 from node1 (eth0)".to_owned(),
                nodes: vec![
                    node("node1", on("eth0"), on("tor1")),
                    node("node2", second, no("no session with tor1")),
                ],
            }],
            warnings: vec!["node1 announces it although it is draining".to_owned()],
        }
    }

    #[test]
    fn the_explanations_equal_the_golden_file() {
        let both = explanation();
        let (mut layer2, mut bgp, mut none) = (explanation(), explanation(), explanation());
        layer2.explained[0].nodes.iter_mut().for_each(|it| it.bgp = None);
        layer2.warnings.clear();
        bgp.explained[0].nodes.iter_mut().for_each(|it| it.layer2 = None);
        none.assignment.clear();
        none.row.reason = "NotServed".to_owned();
        none.warnings.clear();
        let texts = [both, layer2, bgp, none].map(|it| text(&it));
        golden("golden/why.txt", &texts.join("\n"));
    }
}

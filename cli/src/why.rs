//! The command `why`: explains one Service. Pure.

use std::fmt::Write as _;

use ferrolb_controller_core::state::{AddressExplanation, Explanation, NodeVerdict, Verdict};
use ferrolb_proto::facts::Key;
use serde::Serialize;

use crate::table::{one_line, table};

/// Beginning of the addresses of pages, as they are in this version.
const PAGES: &str =
    concat!("https://github.com/ferrolb/ferrolb/blob/v", env!("CARGO_PKG_VERSION"), "/");
/// Sections that explain one reason.
const SECTIONS: [(&str, &str); 9] = [
    ("AddressConflict", "docs/reference/conditions.md#address-conflicts"),
    ("KernelAnswers", "docs/reference/conditions.md#replies-of-a-kernel"),
    ("NoCandidateNode", "docs/reference/conditions.md#causes-of-nocandidatenode"),
    ("NoPoolMatches", "docs/reference/conditions.md#causes-of-nopoolmatches"),
    ("NotServed", "docs/reference/conditions.md#missing-condition"),
    ("OtherClass", "docs/reference/conditions.md#missing-condition"),
    ("NotWritten", "docs/reference/conditions.md#rejected-status-updates"),
    ("ServedByMetalLB", "docs/reference/conditions.md#services-of-metallb"),
    ("StatusContested", "docs/reference/conditions.md#second-controller"),
];
/// Sections with all reasons of a condition, and with the warnings.
const ANNOUNCED: &str = "docs/reference/conditions.md#services-condition-ferrolbioannounced";
const ASSIGNED: &str = "docs/reference/conditions.md#services-condition-ferrolbioaddressassigned";
const WARNINGS: &str = "docs/reference/conditions.md#warnings";

/// Returns the key of a Service in an argument: its name in `namespace`, `NAMESPACE/NAME`, or, as
/// for kubectl, `svc/NAME`.
#[must_use]
pub fn key(argument: &str, namespace: &str) -> Key {
    match argument.split_once('/') {
        None | Some(("svc" | "service" | "services", _)) => {
            Key::new(namespace, argument.rsplit('/').next().unwrap_or_default())
        }
        Some((of, name)) => Key::new(of, name),
    }
}

/// The explanation of a Service, with texts about other load balancers that announce it, or write
/// its status.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why<'a> {
    /// The explanation.
    #[serde(flatten)]
    pub explanation: &'a Explanation,
    /// The texts.
    pub other_load_balancers: &'a [String],
}

/// Returns the explanation as text.
#[must_use]
pub fn text(Why { explanation, other_load_balancers }: Why<'_>) -> String {
    let row = &explanation.row;
    let is_warned = row.announced && !row.warnings.is_empty();
    let warned = if is_warned { ", with a warning" } else { "" };
    let mut text = format!("{}: {}{warned}\n", row.service, row.reason);
    if explanation.assignment.is_empty() {
        _ = writeln!(text, "FerroLB does not serve this Service: {}", explanation.not_served);
        text.push_str(&next_steps(explanation));
        return text;
    }
    _ = writeln!(text, "addresses: {}", one_line(&explanation.assignment));
    for address in &explanation.explained {
        _ = write!(text, "\n{}", address_text(address));
    }
    let is_new = |warning: &&String| !explanation.assignment.contains(&***warning);
    for warning in row.warnings.iter().filter(is_new) {
        _ = writeln!(text, "\nwarning: {}", one_line(warning));
    }
    for other in other_load_balancers {
        _ = writeln!(text, "\nother load balancer: {}", one_line(other));
    }
    text.push_str(&next_steps(explanation));
    text
}

/// Returns the next command, unless the messages contain it, and the link to the section that
/// explains the reason.
fn next_steps(Explanation { row, explained, .. }: &Explanation) -> String {
    let (namespace, name) = (row.service.namespace(), row.service.name());
    let next = match &*row.reason {
        "NoEndpoints" => Some(format!(
            "kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}"
        )),
        "NotServed" => Some(format!("kubectl -n {namespace} get service {name} -o yaml")),
        _ => None,
    };
    let mut text = next.map(|it| format!("\nnext: {it}")).unwrap_or_default();
    let section = match SECTIONS.iter().find(|(reason, _)| row.reason == *reason) {
        Some((_, section)) => section,
        None if row.announced && !row.warnings.is_empty() => WARNINGS,
        None if explained.iter().any(|it| it.reason == row.reason) => ANNOUNCED,
        None => ASSIGNED,
    };
    _ = writeln!(text, "\nreason: {PAGES}{section}");
    text
}

fn address_text(explained: &AddressExplanation) -> String {
    let AddressExplanation { reason, message, nodes, .. } = explained;
    let mut text = format!("{reason}: {}\n", one_line(message));
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
        Verdict::Announces { on, rank, flaws } => {
            let rank = rank.filter(|rank| *rank > 1);
            let rank = rank.map_or_else(String::new, |rank| format!(", rank {rank}"));
            with(format!("announces: {}{rank}", on.join(", ")), flaws)
        }
        Verdict::Candidate { rank, flaws } => with(format!("candidate, rank {rank}"), flaws),
        Verdict::Ineligible { why } => format!("no: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_controller_core::state::ServiceRow;

    use super::*;
    use crate::golden::golden;

    fn node(node: &str, layer2: Verdict, bgp: Verdict) -> NodeVerdict {
        NodeVerdict { node: node.to_owned(), endpoints: 1, layer2: Some(layer2), bgp: Some(bgp) }
    }

    fn explanation() -> Explanation {
        let on = |name: &str, rank| Verdict::Announces {
            on: vec![name.to_owned()],
            rank,
            flaws: Vec::new(),
        };
        let no = |why: &str| Verdict::Ineligible { why: why.to_owned() };
        let second = Verdict::Candidate { rank: 2, flaws: vec!["draining", "isolated"] };
        let address = "192.168.1.240".parse().unwrap();
        Explanation {
            row: ServiceRow {
                service: Key::new("default", "web"),
                addresses: vec![address],
                pool: Some("lan".to_owned()),
                nodes: vec!["node1".to_owned()],
                since: None,
                reason: "Announced".to_owned(),
                announced: true,
                served: true,
                contested: false,
                warnings: vec!["node1 announces it although it is draining".to_owned()],
                unchecked: None,
            },
            assignment: "192.168.1.240 from pool lan".to_owned(),
            explained: vec![AddressExplanation {
                address,
                reason: "Announced",
                message: "192.168.1.240 from node1 (eth0)".to_owned(),
                nodes: vec![
                    node("node1", on("eth0", Some(3)), on("tor1", None)),
                    node("node2", second, no("no session with tor1")),
                ],
            }],
            not_served: String::new(),
        }
    }

    #[test]
    fn messages_of_the_cluster_do_not_control_the_terminal() {
        let mut forged = explanation();
        forged.explained[0].message = "x\n\u{1b}[2J".to_owned();
        forged.explained[0].nodes[0].layer2 =
            Some(Verdict::Ineligible { why: "\u{1b}]0;y".to_owned() });
        forged.row.warnings = vec!["\rz".to_owned()];
        let is_control = |c: char| c.is_control() && c != '\n';
        let others = ["Cilium\u{1b}[2J".to_owned()];
        let printed = text(Why { explanation: &forged, other_load_balancers: &others });
        assert!(!printed.contains(is_control), "{printed:?}");
        assert!(printed.contains(r"Announced: x\n\u{1b}[2J"), "{printed}");
    }

    #[test]
    fn a_service_is_named_as_for_kubectl() {
        for (argument, expect) in [
            ("web", "team/web"),
            ("svc/web", "team/web"),
            ("service/web", "team/web"),
            ("services/web", "team/web"),
            ("shop/web", "shop/web"),
        ] {
            assert_eq!(key(argument, "team").to_string(), expect, "{argument}");
        }
    }

    #[test]
    fn the_explanations_equal_the_golden_file() {
        let both = explanation();
        let (mut layer2, mut bgp, mut none) = (explanation(), explanation(), explanation());
        layer2.explained[0].nodes.iter_mut().for_each(|it| it.bgp = None);
        layer2.row.warnings.clear();
        bgp.explained[0].nodes.iter_mut().for_each(|it| it.layer2 = None);
        none.assignment.clear();
        none.row.reason = "NotServed".to_owned();
        none.row.warnings.clear();
        none.not_served = "its spec.type is not LoadBalancer".to_owned();
        let mut endpoints = explanation();
        (endpoints.row.reason, endpoints.row.announced) = ("NoEndpoints".to_owned(), false);
        endpoints.explained[0].reason = "NoEndpoints";
        let mut conflict = explanation();
        (conflict.row.reason, conflict.row.announced) = ("KernelAnswers".to_owned(), false);
        (conflict.explained[0].reason, conflict.row.warnings) = ("KernelAnswers", Vec::new());
        let others = vec!["Cilium announces default/web from node3, too".to_owned()];
        let all = [both, layer2, bgp, none, endpoints].map(|it| (it, Vec::new()));
        let texts = all.into_iter().chain([(conflict, others)]).map(|(explanation, others)| {
            text(Why { explanation: &explanation, other_load_balancers: &others })
        });
        let texts: Vec<_> = texts.collect();
        golden("golden/why.txt", &texts.join("\n"));
    }
}

//! Lines with which kubectl reports a change. Pure.

/// Ends of lines that begin with `KIND/NAME`, or with `KIND "NAME"`.
const CHANGES: [&str; 21] = [
    "annotated",
    "condition met",
    "configured",
    "cordoned",
    "created",
    "deleted",
    "drained",
    "env updated",
    "exposed",
    "labeled",
    "not labeled",
    "patched",
    "patched (no change)",
    "replaced",
    "restarted",
    "rolled back",
    "scaled",
    "serverside-applied",
    "unchanged",
    "uncordoned",
    "unlabeled",
];
/// Notes after a report.
const DRY_RUN: &str = " (server dry run)";
const NAMESPACE: (&str, &str) = (" from ", " namespace");

/// Returns the lines of an output that report no change. A page need not show a report: a reader
/// expects it after each command that changes an object.
pub(super) fn without_reports(output: &str) -> String {
    let lines = output.split_inclusive('\n');
    lines.filter(|line| !line.trim().is_empty() && !is_report(line.trim())).collect()
}

/// Returns whether a line reports a change: `service/web created`, or, for a deletion,
/// `service "web" deleted from default namespace`.
fn is_report(line: &str) -> bool {
    let Some((object, change)) = line.split_once(' ') else { return false };
    let change = change.strip_suffix(DRY_RUN).unwrap_or(change);
    if object.contains('/') {
        return CHANGES.contains(&change);
    }
    let name = change.strip_prefix('"').and_then(|rest| rest.split_once("\" "));
    name.is_some_and(|(_, change)| {
        let namespace = change.strip_suffix(NAMESPACE.1);
        let change = namespace.and_then(|rest| rest.split_once(NAMESPACE.0));
        change.map_or(name.unwrap_or_default().1, |(change, _)| change) == "deleted"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_of_kubectl_are_removed() {
        for (line, expect) in [
            ("service/web created", true),
            ("customresourcedefinition.apiextensions.k8s.io/a.ferrolb.io serverside-applied", true),
            ("bgppeer.ferrolb.io/tor created (server dry run)", true),
            ("service/web condition met", true),
            ("service/web patched (no change)", true),
            ("service \"web\" deleted", true),
            ("service \"web\" deleted from default namespace", true),
            ("service \"web\" in namespace default", false),
            ("daemon set \"gobgpd\" successfully rolled out", false),
            ("service/web created twice", false),
            ("web created", false),
            ("default/web", false),
            ("Error from server (NotFound): services \"web\" not found", false),
        ] {
            assert_eq!(is_report(line), expect, "{line}");
        }
        assert_eq!(without_reports("a/b created\nc\n\nd/e deleted\n"), "c\n");
    }
}

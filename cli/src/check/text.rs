//! A report as text: a block for each category, or one line for each finding. Pure.

use std::fmt::Write as _;

use super::finding::{Finding, PAGE, Severity};
use super::report::Report;
use crate::table::{GOOD, PROBLEM, WARNING, one_line};

/// Width of the column with the categories.
const COLUMN: usize = 17;

const fn sign(severity: Severity) -> char {
    match severity {
        Severity::Problem => PROBLEM,
        Severity::Warning => WARNING,
    }
}

fn line(finding: &Finding) -> String {
    let Finding { code, severity, text, .. } = finding;
    let text = one_line(text);
    format!("{} {} {text}  -> checks.md#{}", sign(*severity), code.name(), code.anchor())
}

/// Returns the report as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for category in &report.categories {
        let name = category.category.name();
        let mut lines: Vec<_> = category.findings.iter().map(line).collect();
        lines.extend(category.summary.iter().map(|summary| format!("{GOOD} {summary}")));
        for (index, line) in lines.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            _ = writeln!(text, "{name:COLUMN$}{line}");
        }
    }
    _ = writeln!(text, "\nproblems: {}, warnings: {}", report.problems, report.warnings);
    if report.problems + report.warnings > 0 {
        _ = writeln!(text, "checks.md: {PAGE}");
    }
    text
}

/// Returns one line for each finding.
#[must_use]
pub fn short(report: &Report) -> String {
    report.findings().fold(String::new(), |mut text, finding| {
        let Finding { code, severity, text: fact, .. } = finding;
        _ = writeln!(text, "{} {} {}", sign(*severity), code.name(), one_line(fact));
        text
    })
}

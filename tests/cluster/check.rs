//! `kubectl ferrolb check` on a real cluster: each finding appears with its cause, names its
//! object, and disappears when the cause is removed.

mod cases;
mod commands;

use crate::pools;
use crate::scenario::{run_scenario, step};
use anyhow::{Context, Result, ensure};
use cases::{CASES, Case};
use ferrolb_cli::check::finding::Code;
use ferrolb_lab::cluster::ferrolb::CONTROLLER;
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::Value;
use std::collections::BTreeSet;

/// Codes that no cluster of the lab produces. Its oldest version of Kubernetes is supported.
const WITHOUT_CASE: [Code; 1] = [Code::KubernetesOld];

#[test]
fn each_finding_has_a_cause() {
    run_scenario(&Options::named("check"), |lab| {
        step("a cluster without FerroLB has no finding", || {
            lab.shell("kubectl ferrolb check --pre --strict").map(drop)
        })?;
        lab.start_ferrolb()?;
        step("a new installation has no finding", || {
            let found = wait::until("no finding", pools::STATE_MAX, || {
                let report = check(lab, "")?;
                Ok((report.code == 0 && report.findings.is_empty()).then_some(report))
            })?;
            ensure!(found.json["problems"] == 0, "{:#}", found.json);
            let text = lab.shell("kubectl ferrolb check --strict")?;
            ensure!(text.contains("✓ 59 of 59"), "{text}");
            Ok(())
        })?;
        let mut seen: BTreeSet<_> = WITHOUT_CASE.into();
        for case in CASES {
            step(&format!("{}: {}", case.code.name(), case.object), || produce(lab, case))?;
            seen.insert(case.code);
        }
        step("no active leader", || no_leader(lab))?;
        seen.insert(Code::NoLeader);
        let all: BTreeSet<_> = Code::ALL.iter().copied().collect();
        ensure!(seen == all, "without a case: {:?}", all.difference(&seen));
        Ok(())
    });
}

/// Result of `kubectl ferrolb check -o json`.
struct Report {
    /// The exit code.
    code: u8,
    json: Value,
    /// Code and objects of each finding.
    findings: Vec<(String, Vec<String>)>,
}

fn check(lab: &Lab, arguments: &str) -> Result<Report> {
    let command =
        format!("kubectl ferrolb check -o json {arguments} && echo exit 0 || echo exit $?");
    let output = lab.shell(&command)?;
    let (text, code) = output.trim_end().rsplit_once("exit ").context("no exit code")?;
    let json: Value = serde_json::from_str(text).with_context(|| output.clone())?;
    let categories = json["categories"].as_array().into_iter().flatten();
    let findings = categories.flat_map(|it| it["findings"].as_array().into_iter().flatten());
    let finding = |it: &Value| {
        let objects = it["objects"].as_array().into_iter().flatten().map(object);
        (it["code"].as_str().unwrap_or_default().to_owned(), objects.collect())
    };
    Ok(Report { code: code.parse()?, findings: findings.map(finding).collect(), json })
}

/// Returns an object as `KIND NAMESPACE/NAME`, or `KIND NAME`.
fn object(object: &Value) -> String {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    match object["namespace"].as_str() {
        Some(namespace) => format!("{} {namespace}/{}", text("kind"), text("name")),
        None => format!("{} {}", text("kind"), text("name")),
    }
}

impl Report {
    /// Returns whether the report has the finding of a case.
    fn has(&self, case: &Case) -> bool {
        self.findings.iter().any(|(code, objects)| {
            let is_about = case.object.is_empty() || objects.iter().any(|it| it == case.object);
            code == case.code.name() && is_about
        })
    }
}

/// Produces a finding, and removes its cause.
fn produce(lab: &Lab, case: &Case) -> Result<()> {
    let wait_report = |is_expected: bool| {
        wait::until(case.code.name(), pools::STATE_MAX, || {
            let report = check(lab, case.arguments)?;
            Ok((report.has(case) == is_expected).then_some(report))
        })
    };
    lab.shell(case.make)?;
    let report = wait_report(true)?;
    let (json, is_incomplete) = (&report.json, report.json["incomplete"] == true);
    let has_problems = json["problems"] != 0;
    let expected = if is_incomplete { 2 } else { u8::from(has_problems) };
    ensure!(report.code == expected, "exit code {}: {json:#}", report.code);
    let strict = check(lab, &format!("--strict {}", case.arguments))?;
    let expected = if is_incomplete { 2 } else { 1 };
    ensure!(strict.code == expected, "exit code {}: {:#}", strict.code, strict.json);
    lab.shell(case.undo)?;
    // The finding of a case without objects to remove follows from its arguments.
    if case.undo != cases::NOTHING {
        wait_report(false)?;
    }
    Ok(())
}

fn no_leader(lab: &Lab) -> Result<()> {
    let has = |expected: bool| {
        wait::until("FLB002", pools::STATE_MAX, || {
            let report = check(lab, "")?;
            let found = report.findings.iter().any(|(code, _)| code == Code::NoLeader.name());
            Ok((found == expected).then_some(()))
        })
    };
    lab.stop(CONTROLLER, Signal::TERM)?;
    has(true)?;
    lab.restart(CONTROLLER)?;
    has(false)
}

//! Removal of FerroLB by the commands on the documentation page, and a check that nothing is left.

use crate::scenario::print_measured;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, setup, wait};
use std::fs;
use std::time::Duration;

/// The documentation page.
const PAGE: &str = "docs/uninstall.md";
/// Start and end of a block of commands on it.
const OPENS: &str = "```sh\n";
const CLOSES: &str = "```";
/// Part of the name of every object of FerroLB.
const OURS: &str = "ferrolb";
/// Minimum number of objects of an installation.
const OBJECTS_MIN: usize = 20;
/// Maximum time until deleted objects are gone.
const GONE_MAX: Duration = Duration::from_secs(60);

/// Runs the first block of commands after each of these texts. Then checks that no object of
/// FerroLB is left, and that Services that had addresses can be deleted.
pub(crate) fn uninstalled(lab: &Lab, behind: &[&str]) -> Result<()> {
    let (there, start) = (ferrolb_objects(lab)?.lines().count(), wait::now());
    ensure!(there >= OBJECTS_MIN, "only {there} objects belong to FerroLB");
    for words in behind {
        let commands = commands(words)?;
        lab.shell(&commands).with_context(|| format!("commands of {PAGE}:\n{commands}"))?;
    }
    wait::until("nothing of FerroLB's is left", GONE_MAX, || {
        let left = ferrolb_objects(lab)?;
        ensure!(left.is_empty(), "{left}");
        Ok(Some(()))
    })?;
    print_measured(&format!(
        "uninstalled, {there} objects gone: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    delete_services(lab)
}

/// Returns the first block of commands on the page after this text.
fn commands(behind: &str) -> Result<String> {
    let text = fs::read_to_string(setup::repository().join(PAGE))?;
    let (_, after) =
        text.split_once(behind).with_context(|| format!("{PAGE} does not contain {behind:?}"))?;
    let block = after.split_once(OPENS).and_then(|(_, block)| block.split_once(CLOSES));
    Ok(block.with_context(|| format!("{PAGE} has no commands after {behind:?}"))?.0.to_owned())
}

/// Returns every object of every kind with FerroLB in its name, namespace or labels, one per line.
fn ferrolb_objects(lab: &Lab) -> Result<String> {
    let kinds = lab.kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,LABELS:.metadata.labels";
    let all = lab.kubectl(&[
        "get",
        &kinds.join(","),
        "--all-namespaces",
        "--ignore-not-found",
        "-o",
        columns,
    ])?;
    Ok(all.lines().filter(|line| line.contains(OURS)).collect::<Vec<_>>().join("\n"))
}

/// Deletes the Services. A finalizer of FerroLB would block this.
fn delete_services(lab: &Lab) -> Result<()> {
    let balanced =
        "jsonpath={range .items[?(@.spec.type==\"LoadBalancer\")]}{.metadata.name}{\"\\n\"}{end}";
    let services = lab.kubectl(&["get", "services", "-o", balanced])?;
    ensure!(!services.is_empty(), "no Service of type LoadBalancer is there to be deleted");
    services.lines().try_for_each(|service| {
        lab.kubectl(&["delete", "service", service, "--timeout=20s"]).map(drop)
    })
}

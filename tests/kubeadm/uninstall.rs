//! Removal of FerroLB by the commands of docs/uninstall.md, and a check that nothing is left.

use crate::scenario::print_measured;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, setup, wait};
use std::fs;
use std::time::Duration;

/// Documentation page with the commands that the test runs.
const PAGE: &str = "docs/uninstall.md";
/// Start and end of a block of commands on [`PAGE`].
const BLOCK_START: &str = "```sh\n";
const BLOCK_END: &str = "```";
/// Part of the name, the namespace or the labels of every object of FerroLB.
const FERROLB: &str = "ferrolb";
/// Minimum number of objects of an installation.
const OBJECTS_MIN: usize = 20;
/// Maximum time until all deleted objects have disappeared.
const DELETED_MAX: Duration = Duration::from_secs(60);

/// Runs the first block of commands after each of `texts` on [`PAGE`]. Then checks that no object
/// of FerroLB is left, and that Services that had addresses can be deleted.
pub(crate) fn uninstall(lab: &Lab, texts: &[&str]) -> Result<()> {
    let (count, start) = (ferrolb_objects(lab)?.lines().count(), wait::now());
    ensure!(count >= OBJECTS_MIN, "only {count} objects belong to FerroLB");
    for text in texts {
        let commands = commands(text)?;
        lab.shell(&commands)
            .with_context(|| format!("these commands of {PAGE} failed:\n{commands}"))?;
    }
    wait::until("no object of FerroLB is left", DELETED_MAX, || {
        let left = ferrolb_objects(lab)?;
        ensure!(left.is_empty(), "these objects are left:\n{left}");
        Ok(Some(()))
    })?;
    print_measured(&format!(
        "uninstalled, {count} objects deleted: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    delete_services(lab)
}

/// Returns the first block of commands after `text` on [`PAGE`].
fn commands(text: &str) -> Result<String> {
    let page = fs::read_to_string(setup::repository().join(PAGE))?;
    let (_, after) =
        page.split_once(text).with_context(|| format!("{PAGE} does not contain {text:?}"))?;
    let block = after.split_once(BLOCK_START).and_then(|(_, block)| block.split_once(BLOCK_END));
    Ok(block.with_context(|| format!("{PAGE} has no commands after {text:?}"))?.0.to_owned())
}

/// Returns all objects with `ferrolb` in their names, namespaces or labels, one per line.
fn ferrolb_objects(lab: &Lab) -> Result<String> {
    let types = lab.kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    let types: Vec<&str> = types.lines().filter(|name| !name.starts_with("events")).collect();
    let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,LABELS:.metadata.labels";
    let all = lab.kubectl(&[
        "get",
        &types.join(","),
        "--all-namespaces",
        "--ignore-not-found",
        "-o",
        columns,
    ])?;
    Ok(all.lines().filter(|line| line.contains(FERROLB)).collect::<Vec<_>>().join("\n"))
}

/// Deletes all LoadBalancer Services. A remaining finalizer of FerroLB would block the deletion.
fn delete_services(lab: &Lab) -> Result<()> {
    let load_balancers =
        "jsonpath={range .items[?(@.spec.type==\"LoadBalancer\")]}{.metadata.name}{\"\\n\"}{end}";
    let services = lab.kubectl(&["get", "services", "-o", load_balancers])?;
    ensure!(!services.is_empty(), "there is no Service of type LoadBalancer to delete");
    services.lines().try_for_each(|service| {
        lab.kubectl(&["delete", "service", service, "--timeout=20s"]).map(drop)
    })
}

//! Uninstalling, by the commands that the page tells a person to type; and what there is of FerroLB on the cluster after that.

use crate::stage::measured;
use anyhow::{Context, Result, ensure};
use ferrolb_tests::{Lab, setup, wait};
use std::fs;
use std::time::Duration;

/// The page.
const PAGE: &str = "docs/uninstall.md";
/// What begins and ends commands on it.
const OPENS: &str = "```sh\n";
const CLOSES: &str = "```";
/// What is in the name of all that is ours.
const OURS: &str = "ferrolb";
/// An installation has more than so many objects.
const OBJECTS_MIN: usize = 20;
/// How long what was deleted may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(60);

/// Types the commands that stand first behind each of these words. Nothing of ours is left then, and Services that had addresses can be deleted.
pub(crate) fn uninstalled(lab: &Lab, behind: &[&str]) -> Result<()> {
    let (there, start) = (ours(lab)?.lines().count(), wait::now());
    ensure!(there >= OBJECTS_MIN, "only {there} objects are told for FerroLB's");
    for words in behind {
        let commands = commands(words)?;
        lab.shell(&commands).with_context(|| format!("as {PAGE} says:\n{commands}"))?;
    }
    wait::until("nothing of FerroLB's is left", GONE_MAX, || {
        let left = ours(lab)?;
        ensure!(left.is_empty(), "{left}");
        Ok(Some(()))
    })?;
    measured(&format!("uninstalled, {there} objects gone: {:.1} s", start.elapsed().as_secs_f64()));
    delete_services(lab)
}

/// The commands of the page that stand first behind these words.
fn commands(behind: &str) -> Result<String> {
    let text = fs::read_to_string(setup::repository().join(PAGE))?;
    let (_, after) = text.split_once(behind).with_context(|| format!("{PAGE} does not say {behind:?}"))?;
    let block = after.split_once(OPENS).and_then(|(_, block)| block.split_once(CLOSES));
    Ok(block.with_context(|| format!("{PAGE} has no commands behind {behind:?}"))?.0.to_owned())
}

/// Every object of every kind whose name, namespace or labels are ours, as lines.
fn ours(lab: &Lab) -> Result<String> {
    let kinds = lab.kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let columns = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,LABELS:.metadata.labels";
    let all = lab.kubectl(&["get", &kinds.join(","), "--all-namespaces", "--ignore-not-found", "-o", columns])?;
    Ok(all.lines().filter(|line| line.contains(OURS)).collect::<Vec<_>>().join("\n"))
}

/// A finalizer of ours would keep them.
fn delete_services(lab: &Lab) -> Result<()> {
    let balanced = "jsonpath={range .items[?(@.spec.type==\"LoadBalancer\")]}{.metadata.name}{\"\\n\"}{end}";
    let services = lab.kubectl(&["get", "services", "-o", balanced])?;
    ensure!(!services.is_empty(), "no Service of type LoadBalancer is there to be deleted");
    services.lines().try_for_each(|service| lab.kubectl(&["delete", "service", service, "--timeout=20s"]).map(drop))
}

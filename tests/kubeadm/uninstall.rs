//! Removal of FerroLB by the commands of docs/install/uninstall.md, and a check that
//! nothing is left.

use crate::scenario::print_measured;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use ferrolb_tests::read_page;
use ferrolb_tests::run::Runner;
use std::time::Duration;

/// Page with the commands that the test runs.
pub(crate) const PAGE: &str = "docs/install/uninstall.md";
/// Parts of the blocks of commands for an installation by a file, and by Helm.
pub(crate) const BY_FILE: &[&str] = &["kubectl delete -f deploy/install.yaml"];
pub(crate) const BY_HELM: &[&str] = &["helm uninstall", "kubectl get crd"];
/// Part of the commands that keep the pools, and parts of those that change Services afterwards.
pub(crate) const KEEP_POOLS: &str = "delete deployment,daemonset,networkpolicy";
pub(crate) const SERVICES: &[&str] = &["kubectl patch service web", "PATCH="];
/// Part of the commands for MetalLB's namespace after an in-place migration.
pub(crate) const METALLB_NAMESPACE: &str = "kubectl -n metallb-system delete";
/// Part of the name, the namespace or the labels of every object of FerroLB.
const FERROLB: &str = "ferrolb";
/// Minimum number of objects of an installation.
const OBJECTS_MIN: usize = 20;
/// Maximum time until all deleted objects have disappeared.
const DELETED_MAX: Duration = Duration::from_secs(60);

/// Runs [`remove`]. Then checks that Services that had addresses can be deleted.
pub(crate) fn uninstall(lab: &Lab, commands: &[&str]) -> Result<()> {
    remove(lab, commands)?;
    delete_services(lab)
}

/// Runs the blocks of [`PAGE`] with these commands. Then checks that no object of FerroLB is left.
pub(crate) fn remove(lab: &Lab, commands: &[&str]) -> Result<()> {
    let (count, start) = (ferrolb_objects(lab)?.lines().count(), wait::now());
    ensure!(count >= OBJECTS_MIN, "only {count} objects belong to FerroLB");
    let (runner, page) = (Runner::in_lab(lab)?, read_page(PAGE)?);
    let mut commands = commands.iter();
    commands.try_for_each(|part| runner.block(&page, page.commands_with(part)?))?;
    wait::until("no object of FerroLB is left", DELETED_MAX, || {
        let left = ferrolb_objects(lab)?;
        ensure!(left.is_empty(), "these objects are left:\n{left}");
        Ok(Some(()))
    })?;
    print_measured(&format!(
        "uninstalled, {count} objects deleted: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
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

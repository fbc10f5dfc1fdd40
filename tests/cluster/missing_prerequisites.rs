//! Missing prerequisites: FerroLB's permissions or CRDs are absent or removed. Each component logs
//! each missing prerequisite once, uses the others, and recovers without a restart.

use crate::metrics::readyz;
use crate::scenario::{one_node, print_measured, run_scenario, step};
use crate::segment;
use crate::services;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb;
use ferrolb_lab::setup::repository;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Signal, wait};
use ferrolb_proto::api::NAMESPACE;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Process, host and ServiceAccount of both components.
const COMPONENTS: [(&str, &str, &str); 2] =
    [(ferrolb::CONTROLLER, CONTROL_PLANE, "controller"), ("speaker-node1", "node1", "speaker")];
/// Maximum time until a retry: the longest backoff is 20 s, and the rest is for a busy machine.
const RETRIED_MAX: Duration = Duration::from_secs(60);
/// Time for which the components have no permissions: longer than the leader lease.
const WITHOUT_PERMISSIONS: Duration = Duration::from_secs(12);
const BINDINGS: &str = "clusterrolebindings,rolebindings";
/// Message of the log line about a refused watch.
const REFUSED: &str = "watch rejected, retrying";

#[test]
fn missing_prerequisites_are_logged_once_and_used_when_they_appear() {
    run_scenario(&one_node("missing"), |lab| {
        // Without the ServiceAccounts, the components could not authenticate, and the API server
        // would not check their permissions.
        lab.install_ferrolb()?;
        lab.kubectl(&["delete", "-f", &file("crds.yaml")])?;
        remove_permissions(lab)?;
        lab.start_controller(&[])?;
        lab.start_speaker("node1", &[])?;
        let pids = pids(lab)?;
        step(
            "without permissions, each component reports a refused request and is not ready",
            || {
                for_each_component(|component| {
                    wait_reported(
                        lab,
                        component,
                        &["cannot list resource \"services\"", "apply FerroLB's RBAC rules"],
                    )
                })
            },
        )?;
        step("with permissions and without CRDs, each component reports the missing CRDs", || {
            lab.kubectl(&["apply", "-f", &file("rbac.yaml")])?;
            for_each_component(|component| {
                wait_reported(
                    lab,
                    component,
                    &["IPAddressPools: ", "apply FerroLB's CustomResourceDefinitions"],
                )
            })
        })?;
        step("without CRDs, kubectl ferrolb names them, and not a missing installation", || {
            wait::until("a controller leads", RETRIED_MAX, || {
                let check = lab.shell("kubectl ferrolb check -o short || true")?;
                ensure!(check.contains("FLB006") && !check.contains("FLB001"), "{check}");
                Ok(Some(()))
            })?;
            let status = lab.shell("kubectl ferrolb status 2>&1")?;
            let note = "the CustomResourceDefinition of IPAddressPools is missing";
            ensure!(status.contains(note), "kubectl ferrolb status prints {status}");
            Ok(())
        })?;
        let address = step("with the CRDs, a Service is served", || {
            lab.kubectl(&["apply", "-f", &file("crds.yaml")])?;
            for_each_component(|component| wait_ready(lab, component))?;
            logged_once(lab, &BTreeMap::new())?;
            services::apply_pool_and_pod(lab, "node1")?;
            let address = services::serve(lab, "web")?;
            ensure!(segment::wait_owner(lab, address)? == "node1", "another node owns the address");
            Ok(address)
        })?;
        step(
            "permissions are removed: the address stays announced, and each refusal is logged once",
            || remove_permissions_at_run_time(lab, address),
        )?;
        step("permissions are restored: the same processes serve a new Service", || {
            lab.kubectl(&["apply", "-f", &file("rbac.yaml")])?;
            let start = wait::now();
            lab.apply_objects(&[services::service("later", serde_json::json!({}))])?;
            wait::until("the Service has an announced address", RETRIED_MAX, || {
                let addresses = services::addresses(&services::get(lab, "later")?);
                let address = *addresses.first().context("the Service has no address yet")?;
                Ok(Some(segment::owner(lab, address)?))
            })?;
            print_measured(&format!(
                "a Service is served {:?} after the permissions were restored",
                start.elapsed()
            ));
            ensure!(pids == self::pids(lab)?, "a component was restarted");
            Ok(())
        })
    });
}

/// Returns the path of a file in deploy/base.
fn file(name: &str) -> String {
    repository().join("deploy/base").join(name).display().to_string()
}

fn remove_permissions(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", BINDINGS, "-n", NAMESPACE, "-l", "app.kubernetes.io/name=ferrolb"])
        .map(drop)
}

fn for_each_component(check: impl Fn(&(&str, &str, &str)) -> Result<()>) -> Result<()> {
    COMPONENTS.iter().try_for_each(check)
}

fn pids(lab: &Lab) -> Result<Vec<i32>> {
    COMPONENTS.iter().map(|(process, ..)| lab.pid(process)).collect()
}

/// Waits until `/readyz` of a component contains all of `words`, and its log contains a line about
/// the refused watch with the last of `words`, and the name of the component's ServiceAccount.
fn wait_reported(
    lab: &Lab,
    (process, host, account): &(&str, &str, &str),
    words: &[&str],
) -> Result<()> {
    wait::until(&format!("{process} reports {words:?}"), RETRIED_MAX, || {
        let (status, body) = readyz(lab, host)?;
        ensure!(
            status == 503 && words.iter().all(|word| body.contains(word)),
            "/readyz returns {status}: {body}"
        );
        let log = lab.logs(process);
        let word = words.last().context("no expected words")?;
        ensure!(
            log.lines().any(|line| line.contains(REFUSED) && line.contains(word)),
            "the log does not contain {word:?}"
        );
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        ensure!(log.contains(&user), "the log does not name {user}");
        Ok(Some(()))
    })
}

fn wait_ready(lab: &Lab, (process, host, _): &(&str, &str, &str)) -> Result<()> {
    wait::until(&format!("{process} is ready"), RETRIED_MAX, || {
        let (status, body) = readyz(lab, host)?;
        ensure!(status == 200, "/readyz returns {status}: {body}");
        Ok(Some(()))
    })
}

fn remove_permissions_at_run_time(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let before = refusals(lab);
    remove_permissions(lab)?;
    // The API server checks permissions only when a watch starts, which may take 290 s. Its restart
    // ends the connections, and with them the watches.
    lab.stop("kube-apiserver", Signal::KILL)?;
    lab.restart("kube-apiserver")?;
    lab.wait_api_ready()?;
    wait::until("each component logs a new refusal", RETRIED_MAX, || {
        let now = refusals(lab);
        let has_new = |process| {
            now.iter()
                .any(|(of, count)| of.0 == process && before.get(of).is_none_or(|was| was < count))
        };
        Ok(COMPONENTS.iter().all(|(process, ..)| has_new(*process)).then_some(()))
    })?;
    wait::during(WITHOUT_PERMISSIONS, || {
        ensure!(segment::owner(lab, address)? == "node1", "another node owns the address");
        Ok(())
    })?;
    logged_once(lab, &before)
}

/// Returns the number of log lines about each refusal. The key of a refusal is the process, and the
/// refused request with its status code.
fn refusals(lab: &Lab) -> BTreeMap<(&'static str, String), usize> {
    let mut counts = BTreeMap::new();
    for (process, ..) in COMPONENTS {
        for line in lab.logs(process).lines().filter(|line| line.contains(REFUSED)) {
            let what = line.split_once("what=").map_or("", |(_, rest)| rest);
            let what = what.split_once(" why=").map_or(what, |(what, _)| what);
            *counts.entry((process, what.to_owned())).or_default() += 1;
        }
    }
    counts
}

/// Checks that no refusal was logged more than once after the numbers in `before` were read.
fn logged_once(lab: &Lab, before: &BTreeMap<(&'static str, String), usize>) -> Result<()> {
    let now = refusals(lab);
    let repeated =
        now.iter().find(|(of, count)| **count > before.get(*of).copied().unwrap_or(0) + 1);
    ensure!(
        repeated.is_none() && !now.is_empty(),
        "a refusal was logged twice: {repeated:?} of {now:#?}"
    );
    Ok(())
}

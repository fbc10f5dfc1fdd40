//! Missing prerequisites: permissions or custom resources that FerroLB needs are absent or removed.
//! Each component logs the missing one once, continues with what it has, and recovers without a
//! restart.

use crate::metrics::readyz;
use crate::scenario::{one_node, print_measured, run_scenario, step};
use crate::segment;
use crate::services;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::{api, ferrolb};
use ferrolb_lab::setup::repository;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Signal, wait};
use ferrolb_proto::api::NAMESPACE;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Both components: process, host, account.
const PROGRAMS: [(&str, &str, &str); 2] =
    [(ferrolb::CONTROLLER, CONTROL_PLANE, "controller"), ("speaker-node1", "node1", "speaker")];
/// Maximum time until a retry: the longest backoff is 20 s, and the rest is for a busy machine.
const RETRIED_MAX: Duration = Duration::from_secs(60);
/// Time without permissions: longer than the controller's lease.
const AWAY: Duration = Duration::from_secs(12);
const BINDINGS: &str = "clusterrolebindings,rolebindings";
/// Start of the log line about a refused watch.
const REFUSED: &str = "watch rejected, retrying";

#[test]
fn missing_prerequisites_are_logged_once_and_used_when_they_appear() {
    run_scenario(&one_node("missing"), |lab| {
        // The accounts must exist: without them the components cannot authenticate, so the API
        // server cannot refuse them.
        lab.install_ferrolb()?;
        lab.kubectl(&["delete", "-f", &file("crds.yaml")])?;
        remove_permissions(lab)?;
        lab.start_controller(&[])?;
        lab.start_speaker("node1", &[])?;
        let pids = pids(lab)?;
        step("without rights each says what its account may not do, and is not ready", || {
            all(|program| {
                wait_reported(
                    lab,
                    program,
                    &["cannot list resource \"services\"", "apply FerroLB's RBAC rules"],
                )
            })
        })?;
        step("with rights, and without kinds, each names these, and where they are", || {
            lab.kubectl(&["apply", "-f", &file("rbac.yaml")])?;
            all(|program| {
                wait_reported(
                    lab,
                    program,
                    &["IPAddressPools: ", "apply FerroLB's CustomResourceDefinitions"],
                )
            })
        })?;
        let given = step("with the kinds all works", || {
            lab.kubectl(&["apply", "-f", &file("crds.yaml")])?;
            all(|program| wait_ready(lab, program))?;
            logged_once(lab, &BTreeMap::new())?;
            services::apply_pool_and_pod(lab, "node1")?;
            let address = services::serve(lab, "web")?;
            ensure!(segment::wait_owner(lab, address)? == "node1", "node1 owns the address");
            Ok(address)
        })?;
        step(
            "rights are taken away: what is announced stays, and each refusal is told once",
            || without_permissions(lab, given),
        )?;
        step("they are given back: a new Service is served, by the same processes", || {
            lab.kubectl(&["apply", "-f", &file("rbac.yaml")])?;
            let start = wait::now();
            lab.apply_objects(&[services::service("later", serde_json::json!({}))])?;
            wait::until("an address that is answered for", RETRIED_MAX, || {
                let has = services::addresses(&services::get(lab, "later")?);
                let address = *has.first().context("no address yet")?;
                Ok(Some(segment::owner(lab, address)?))
            })?;
            print_measured(&format!(
                "a Service is served {:?} after the rights were given back",
                start.elapsed()
            ));
            ensure!(pids == self::pids(lab)?, "a component was restarted");
            Ok(())
        })
    });
}

fn file(name: &str) -> String {
    repository().join("deploy/base").join(name).display().to_string()
}

fn remove_permissions(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", BINDINGS, "-n", NAMESPACE, "-l", "app.kubernetes.io/name=ferrolb"])
        .map(drop)
}

fn all(look: impl Fn(&(&str, &str, &str)) -> Result<()>) -> Result<()> {
    PROGRAMS.iter().try_for_each(look)
}

fn pids(lab: &Lab) -> Result<Vec<i32>> {
    PROGRAMS.iter().map(|(process, ..)| lab.pid(process)).collect()
}

/// Waits until a component reports all of `words` in `/readyz`, and names the refusal and its
/// account in the log.
fn wait_reported(
    lab: &Lab,
    (process, host, account): &(&str, &str, &str),
    words: &[&str],
) -> Result<()> {
    wait::until(&format!("{process} says {words:?}"), RETRIED_MAX, || {
        let (status, why) = readyz(lab, host)?;
        ensure!(
            status == 503 && words.iter().all(|word| why.contains(word)),
            "/readyz returns {status}: {why}"
        );
        let log = lab.logs(process);
        let word = words.last().context("words")?;
        ensure!(
            log.lines().any(|line| line.contains(REFUSED) && line.contains(word)),
            "the log does not contain it"
        );
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        ensure!(log.contains(&user), "the log names no {user}");
        Ok(Some(()))
    })
}

fn wait_ready(lab: &Lab, (process, host, _): &(&str, &str, &str)) -> Result<()> {
    wait::until(&format!("{process} is ready"), RETRIED_MAX, || {
        let (status, why) = readyz(lab, host)?;
        ensure!(status == 200, "/readyz returns {status}: {why}");
        Ok(Some(()))
    })
}

fn without_permissions(lab: &Lab, given: Ipv4Addr) -> Result<()> {
    let before = refusals(lab);
    remove_permissions(lab)?;
    // The API server checks permissions only when a watch starts, which may take 40 s. Its restart
    // ends the connections, and with them the watches.
    lab.stop("kube-apiserver", Signal::KILL)?;
    lab.restart("kube-apiserver")?;
    lab.api(async |client| api::wait_ready(&client).await)?;
    wait::until("a refusal for each program", RETRIED_MAX, || {
        let now = refusals(lab);
        let more = |process| {
            now.iter()
                .any(|(of, count)| of.0 == process && before.get(of).is_none_or(|was| was < count))
        };
        Ok(PROGRAMS.iter().all(|(process, ..)| more(*process)).then_some(()))
    })?;
    wait::during(AWAY, || {
        ensure!(segment::owner(lab, given)? == "node1", "node1 owns the address");
        Ok(())
    })?;
    logged_once(lab, &before)
}

/// Returns the number of log lines for each refusal: the component, and the refused request with
/// its status code.
fn refusals(lab: &Lab) -> BTreeMap<(&'static str, String), usize> {
    let mut told = BTreeMap::new();
    for (process, ..) in PROGRAMS {
        for line in lab.logs(process).lines().filter(|line| line.contains(REFUSED)) {
            let what = line.split_once("what=").map_or("", |(_, rest)| rest);
            let what = what.split_once(" why=").map_or(what, |(what, _)| what);
            *told.entry((process, what.to_owned())).or_default() += 1;
        }
    }
    told
}

/// Checks that no refusal was logged twice since `before`.
fn logged_once(lab: &Lab, before: &BTreeMap<(&'static str, String), usize>) -> Result<()> {
    let now = refusals(lab);
    let often = now.iter().find(|(of, count)| **count > before.get(*of).copied().unwrap_or(0) + 1);
    ensure!(often.is_none() && !now.is_empty(), "{often:?} of {now:#?}");
    Ok(())
}

//! What FerroLB needs of the cluster is not there, or is taken away: it says what, once, goes on with what it has, and needs no restart when it comes.

use crate::client_wire;
use crate::metrics::readyz;
use crate::services;
use crate::stage::{measured, one_node, play, step};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::cluster::{api, ferrolb};
use ferrolb_tests::setup::repository;
use ferrolb_tests::topology::CONTROL_PLANE;
use ferrolb_tests::{Lab, Signal, wait};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Both programs: process, host, account.
const PROGRAMS: [(&str, &str, &str); 2] =
    [(ferrolb::CONTROLLER, CONTROL_PLANE, "controller"), ("speaker-node1", "node1", "speaker")];
/// The longest wait of a retry is 20 s; the rest is for a busy machine.
const RETRIED_MAX: Duration = Duration::from_secs(60);
/// How long the rights are away: longer than the controller's lease.
const AWAY: Duration = Duration::from_secs(12);
const BINDINGS: &str = "clusterrolebindings,rolebindings";
/// How a refused watch begins to be told.
const REFUSED: &str = "the API server does not let us watch";

#[test]
fn what_is_missing_is_named_once_and_taken_up_when_it_comes() {
    play(&one_node("missing"), |lab| {
        // The accounts have to be there: nobody can be refused who cannot ask.
        lab.install_ferrolb()?;
        lab.kubectl(&["delete", "-f", &file("crds.yaml")])?;
        take_rights(lab)?;
        lab.start_controller(&[])?;
        lab.start_speaker("node1", &[])?;
        let pids = pids(lab)?;
        step("without rights each says what its account may not do, and is not ready", || {
            all(|program| wait_said(lab, program, &["cannot list resource \"services\"", "apply FerroLB's RBAC rules"]))
        })?;
        step("with rights, and without kinds, each names these, and where they are", || {
            lab.kubectl(&["apply", "-f", &file("rbac.yaml")])?;
            all(|program| wait_said(lab, program, &["IPAddressPools: ", "apply FerroLB's CustomResourceDefinitions"]))
        })?;
        let given = step("with the kinds all works", || {
            lab.kubectl(&["apply", "-f", &file("crds.yaml")])?;
            all(|program| wait_ready(lab, program))?;
            said_once(lab, &BTreeMap::new())?;
            services::furnish(lab, "node1")?;
            let address = services::serve(lab, "web")?;
            ensure!(client_wire::wait_owner(lab, address)? == "node1", "the one node answers");
            Ok(address)
        })?;
        step("rights are taken away: what is announced stays, and each refusal is told once", || away(lab, given))?;
        step("they are given back: a new Service is served, by the same processes", || {
            lab.kubectl(&["apply", "-f", &file("rbac.yaml")])?;
            let start = wait::now();
            lab.apply_objects(&[services::service("later", serde_json::json!({}))])?;
            wait::until("an address that is answered for", RETRIED_MAX, || {
                let has = services::addresses(&services::get(lab, "later")?);
                let address = *has.first().context("no address yet")?;
                Ok(Some(client_wire::owner(lab, address)?))
            })?;
            measured(&format!("a Service is served {:?} after the rights were given back", start.elapsed()));
            ensure!(pids == self::pids(lab)?, "a program was started anew");
            Ok(())
        })
    });
}

fn file(name: &str) -> String {
    repository().join("deploy/base").join(name).display().to_string()
}

fn take_rights(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", BINDINGS, "-n", NAMESPACE, "-l", "app.kubernetes.io/name=ferrolb"]).map(drop)
}

fn all(look: impl Fn(&(&str, &str, &str)) -> Result<()>) -> Result<()> {
    PROGRAMS.iter().try_for_each(look)
}

fn pids(lab: &Lab) -> Result<Vec<i32>> {
    PROGRAMS.iter().map(|(process, ..)| lab.pid(process)).collect()
}

/// Waits until a program says all this of itself and of its account in `/readyz`, and in its log.
fn wait_said(lab: &Lab, (process, host, account): &(&str, &str, &str), words: &[&str]) -> Result<()> {
    wait::until(&format!("{process} says {words:?}"), RETRIED_MAX, || {
        let (status, why) = readyz(lab, host)?;
        ensure!(status == 503 && words.iter().all(|word| why.contains(word)), "/readyz says {status}: {why}");
        let log = lab.logs(process);
        let word = words.last().context("words")?;
        ensure!(log.lines().any(|line| line.contains(REFUSED) && line.contains(word)), "the log does not");
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        ensure!(log.contains(&user), "the log names no {user}");
        Ok(Some(()))
    })
}

fn wait_ready(lab: &Lab, (process, host, _): &(&str, &str, &str)) -> Result<()> {
    wait::until(&format!("{process} is ready"), RETRIED_MAX, || {
        let (status, why) = readyz(lab, host)?;
        ensure!(status == 200, "/readyz says {status}: {why}");
        Ok(Some(()))
    })
}

fn away(lab: &Lab, given: Ipv4Addr) -> Result<()> {
    let before = refusals(lab);
    take_rights(lab)?;
    // A watch that runs is not asked again for 40 s; with the connection goes the watch.
    lab.stop("kube-apiserver", Signal::KILL)?;
    lab.restart("kube-apiserver")?;
    lab.api(async |client| api::wait_ready(&client).await)?;
    wait::until("a refusal for each program", RETRIED_MAX, || {
        let now = refusals(lab);
        let more =
            |process| now.iter().any(|(of, count)| of.0 == process && before.get(of).is_none_or(|was| was < count));
        Ok(PROGRAMS.iter().all(|(process, ..)| more(*process)).then_some(()))
    })?;
    wait::during(AWAY, || {
        ensure!(client_wire::owner(lab, given)? == "node1", "the one node answers");
        Ok(())
    })?;
    said_once(lab, &before)
}

/// How often each program told of each refusal: program, and what is refused with its code.
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

/// No refusal was told twice since `before`.
fn said_once(lab: &Lab, before: &BTreeMap<(&'static str, String), usize>) -> Result<()> {
    let now = refusals(lab);
    let often = now.iter().find(|(of, count)| **count > before.get(*of).copied().unwrap_or(0) + 1);
    ensure!(often.is_none() && !now.is_empty(), "{often:?} of {now:#?}");
    Ok(())
}

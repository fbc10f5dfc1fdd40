//! Source ranges and session affinity of a Service, which kube-proxy implements: both work with an
//! address that FerroLB announces.

use crate::node_failure::PROBE_INTERVAL;
use crate::scenario::{print_measured, step};
use crate::services::{self, WEB, http};
use crate::under_load::{run_without_loss, wait_moved};
use crate::{pools, segment};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE, Host};
use ferrolb_lab::{Lab, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Time in which the client opens about a hundred connections. Without affinity, one of three pods
/// never gets all of them.
const PROBE_LENGTH: Duration = Duration::from_secs(1);

/// Runs the steps. They require that nodes 1 to 3 run, each with a pod that has the label [`WEB`].
pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("a client inside loadBalancerSourceRanges is served, and one outside is not", || {
        check_source_ranges(lab)
    })?;
    step("with sessionAffinity ClientIP, one pod gets all connections, also after a move", || {
        check_affinity(lab)
    })
}

fn check_source_ranges(lab: &Lab) -> Result<()> {
    let client = Host::client().v4();
    let address = services::serve(lab, "ranges")?;
    let served =
        |host: &str| lab.http_get(host, http(address), "/").is_ok_and(|page| page.status == 200);
    wait::until("both hosts are served without source ranges", pools::STATE_MAX, || {
        Ok((served(CLIENT) && served(CONTROL_PLANE)).then_some(()))
    })?;
    services::patch(
        lab,
        "ranges",
        &json!({"spec": {"loadBalancerSourceRanges": [format!("{client}/32")]}}),
    )?;
    wait::until("only the client is served", pools::STATE_MAX, || {
        Ok((!served(CONTROL_PLANE) && served(CLIENT)).then_some(()))
    })
}

fn check_affinity(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[services::service("affine", json!({"sessionAffinity": "ClientIP"}))])?;
    let address = services::address(lab, "affine")?;
    let owner = segment::wait_owner(lab, address)?;
    let before =
        wait::until("one pod gets all connections", pools::STATE_MAX, || only_pod(lab, address))?;
    let after = run_without_loss(lab, address, ("session affinity, owner cordoned", 1), || {
        lab.kubectl(&["cordon", &owner])?;
        wait_moved(lab, address, &owner)?;
        wait::until("one pod gets all connections again", pools::STATE_MAX, || {
            only_pod(lab, address)
        })
    })?;
    let choice = if before == after { "the same by chance" } else { "another pod" };
    print_measured(&format!(
        "session affinity: {before} before the owner was cordoned, {after} after: {choice}"
    ));
    lab.kubectl(&["uncordon", &owner]).map(drop)
}

/// Returns the pod that serves all connections of the next second. Fails if several pods serve
/// them.
fn only_pod(lab: &Lab, address: Ipv4Addr) -> Result<Option<String>> {
    let report = lab.start_probe(http(address), PROBE_LENGTH, PROBE_INTERVAL).finish()?;
    let pods: BTreeSet<&String> = report.pods.keys().collect();
    ensure!(report.ok > 0, "no connection succeeded: {report:?}");
    ensure!(pods.len() == 1, "{:?} replied, all with the label {WEB:?}", report.pods);
    Ok(Some(pods.into_iter().next().context("no pod replied")?.clone()))
}

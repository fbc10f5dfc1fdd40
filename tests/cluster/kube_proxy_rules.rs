//! What kube-proxy makes of a Service, and what FerroLB must leave to it: source ranges, session affinity. They hold over an address of ours.

use crate::node_death::PROBE_STEP;
use crate::services::{self, WEB, http};
use crate::stage::{measured, step};
use crate::under_load::{unharmed, wait_moved};
use crate::{client_wire, pools};
use anyhow::{Context, Result, ensure};
use ferrolb_tests::topology::{CLIENT, CONTROL_PLANE, Host};
use ferrolb_tests::{Lab, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// A hundred connections: by chance one pod of three gets them all only in a broken universe.
const LOOK: Duration = Duration::from_secs(1);

/// Nodes 1 to 3 are alive, with a pod labelled [`WEB`] each.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("a client inside loadBalancerSourceRanges is served, and one outside is not", || source_ranges(lab))?;
    step("with sessionAffinity ClientIP one pod has all connections of a client, also after a move", || affinity(lab))
}

fn source_ranges(lab: &Lab) -> Result<()> {
    let client = Host::client().v4();
    let address = services::serve(lab, "ranges")?;
    let served = |host: &str| lab.http_get(host, http(address), "/").is_ok_and(|page| page.status == 200);
    wait::until("both are served without ranges", pools::BRINGING_MAX, || {
        Ok((served(CLIENT) && served(CONTROL_PLANE)).then_some(()))
    })?;
    services::patch(lab, "ranges", &json!({"spec": {"loadBalancerSourceRanges": [format!("{client}/32")]}}))?;
    wait::until("only the client is served", pools::BRINGING_MAX, || {
        Ok((!served(CONTROL_PLANE) && served(CLIENT)).then_some(()))
    })
}

fn affinity(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[services::service("affine", json!({"sessionAffinity": "ClientIP"}))])?;
    let address = services::address(lab, "affine")?;
    let owner = client_wire::wait_owner(lab, address)?;
    let before = wait::until("one pod has all connections", pools::BRINGING_MAX, || pods(lab, address))?;
    let after = unharmed(lab, address, ("session affinity, owner cordoned", 1), || {
        lab.kubectl(&["cordon", &owner])?;
        wait_moved(lab, address, &owner)?;
        wait::until("one pod has all connections again", pools::BRINGING_MAX, || pods(lab, address))
    })?;
    let kept = if before == after { "by chance the same" } else { "another" };
    measured(&format!("session affinity: {before} before the owner was cordoned, {after} after: {kept}"));
    lab.kubectl(&["uncordon", &owner]).map(drop)
}

/// The pod that has all connections of the next second, if it is one.
fn pods(lab: &Lab, address: Ipv4Addr) -> Result<Option<String>> {
    let report = lab.start_probe(http(address), LOOK, PROBE_STEP).finish()?;
    let pods: BTreeSet<&String> = report.pods.keys().collect();
    ensure!(report.ok > 0, "nothing was answered: {report:?}");
    ensure!(pods.len() == 1, "{:?} answered, all of {WEB:?}", report.pods);
    Ok(Some(pods.into_iter().next().context("a pod")?.clone()))
}

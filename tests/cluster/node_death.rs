//! The owner's plug is pulled: another node answers within three times the budget, and it is one.

use crate::metrics::readyz;
use crate::stage::{measured, play, step};
use crate::{client_wire, pools, services};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::claim::LISTEN;
use ferrolb_proto::election::order;
use ferrolb_tests::topology::{CLIENT, Host};
use ferrolb_tests::{Lab, Options, Report, wait};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The longest gap that a client may see when a node dies, three times over: tests run on busy machines, the benchmark tells the truth.
pub(crate) const GAP_MAX: Duration = Duration::from_millis(3 * 300);
/// One new connection every so often.
pub(crate) const PROBE_STEP: Duration = Duration::from_millis(10);
/// How long is probed: the event, and some seconds after it.
pub(crate) const PROBE_LENGTH: Duration = Duration::from_secs(4);
/// The address that the Service gets, of the lab's first family.
const FIRST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200)), IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200))];
/// So many pages in a row of one pod say that no other is behind the Service: kube-proxy takes one by chance.
const PAGES: usize = 10;
/// A node that came back may take over after so long, in this test.
const FAILBACK: Duration = Duration::from_secs(3);

#[test]
fn when_the_owner_loses_power_another_node_answers_and_gives_back_when_it_returns() {
    play(&Options::named("death"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &["--failback-delay", "3s"])?;
        }
        step("all speakers have listened, so that the first in line is the first owner", || listened(lab))?;
        let (address, owner) =
            step("a Service is served from a pod that is not on its owner", || serve_elsewhere(lab))?;
        step("the owner loses power", || {
            let report = probed(lab, address, "owner powered off", PROBE_LENGTH, || lab.power_off(&owner))?;
            within_budget(&report)
        })?;
        let second = step("another node is the one owner", || client_wire::owner(lab, address))?;
        ensure!(second != owner, "{owner} is off and answers");
        step("it gets its address back some time after its power", || {
            let length = FAILBACK + PROBE_LENGTH;
            let report = probed(lab, address, "owner powered on again", length, || lab.power_on(&owner))?;
            within_budget(&report)?;
            wait::until("failback", pools::BRINGING_MAX, || {
                let now = client_wire::owner(lab, address)?;
                Ok((now == owner).then_some(()))
            })
        })
    });
}

/// Waits until every speaker is ready and has listened long enough to claim.
pub(crate) fn listened(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        wait::until(&format!("the speaker of {node} is ready"), pools::BRINGING_MAX, || {
            let (status, words) = readyz(lab, &node)?;
            ensure!(status == 200, "{status}: {words}");
            Ok(Some(()))
        })?;
    }
    wait::during(LISTEN * 2, || Ok(()))
}

/// Probes the Service while `event` happens, and prints what the client saw.
pub(crate) fn probed(
    lab: &Lab,
    address: impl Into<IpAddr>,
    name: &str,
    length: Duration,
    event: impl FnOnce() -> Result<()>,
) -> Result<Report> {
    let server = services::http(address);
    let probing = lab.start_probe(server, length, PROBE_STEP);
    lab.http_get(CLIENT, server, "/").context("a page before the event")?;
    event()?;
    let report = probing.finish()?;
    let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
    measured(&format!("{name}: {lost} of {sent} connections lost, longest gap {gap:.0} ms"));
    Ok(report)
}

/// The client saw no gap above the limit.
pub(crate) fn within_budget(report: &Report) -> Result<()> {
    let limit = GAP_MAX.as_secs_f64() * 1000.0;
    ensure!(report.longest_gap_ms < limit, "the gap is above {limit} ms: {report:#?}");
    ensure!(report.ok > report.sent / 2, "hardly a page: {report:#?}");
    Ok(())
}

/// Serves a page from a pod on the node that is last in line for the address, so that its owner can die without the page; address and
/// owner. The first in line need not be the owner: one that has listened for longer claims first.
pub(crate) fn serve_elsewhere(lab: &Lab) -> Result<(IpAddr, String)> {
    let (address, mut nodes) = (lab.families().first(FIRST), lab.nodes());
    nodes.sort_by_key(|node| order(node, address));
    let (first, last) = (nodes.first().context("a node")?, nodes.last().context("a node")?);
    services::furnish(lab, last)?;
    lab.apply_objects(&[services::service("web", json!({}))])?;
    services::wait_addresses(lab, "web", &[&address.to_string()])?;
    let owner = client_wire::wait_owner(lab, address)?;
    let mut pod = "web";
    if owner == *last {
        pod = "web2";
        lab.pod(pod, first, &services::WEB)?;
        lab.remove_pod("web")?;
    }
    all_forward_to(lab, pod, |host| lab.families().first(host.addresses()))?;
    Ok((address, owner))
}

/// Waits until every node forwards to this pod, and to no other, what comes in at its own address of a family.
pub(crate) fn all_forward_to(lab: &Lab, pod: &str, address: impl Fn(&Host) -> IpAddr) -> Result<()> {
    let service = services::get(lab, "web")?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = ports.first().and_then(|port| u16::try_from(port.node_port?).ok()).context("a node port")?;
    lab.nodes().iter().try_for_each(|node| {
        let host = Host::named(node).context("a node")?;
        forwards_to(lab, node, SocketAddr::new(address(&host), port), pod)
    })
}

/// Waits until kube-proxy on a node forwards what comes in to this pod, so that it is not kube-proxy that is measured.
pub(crate) fn forwards_to(lab: &Lab, node: &str, server: SocketAddr, pod: &str) -> Result<()> {
    wait::until(&format!("{node} forwards to {pod}"), pools::BRINGING_MAX, || {
        for _ in 0..PAGES {
            let page = lab.http_get(CLIENT, server, "/")?;
            ensure!(page.body.split_whitespace().next() == Some(pod), "another pod answered: {:?}", page.body);
        }
        Ok(Some(()))
    })
}

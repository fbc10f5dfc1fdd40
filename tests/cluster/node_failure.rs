//! Failure of the owner: another node replies within three times the target, and only one does.

use crate::metrics::readyz;
use crate::scenario::{print_measured, run_scenario, step};
use crate::{pools, segment, services};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, ProbeReport, wait};
use ferrolb_proto::claim::LISTEN_PHASE;
use ferrolb_proto::election::order;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Longest gap that a client may see when a node fails: three times the target, for a busy machine.
/// The benchmark checks the target itself.
pub(crate) const GAP_MAX: Duration = Duration::from_millis(3 * 300);
/// Interval between two new connections.
pub(crate) const PROBE_STEP: Duration = Duration::from_millis(10);
/// Length of a probe: the event, and some seconds after it.
pub(crate) const PROBE_LENGTH: Duration = Duration::from_secs(4);
/// First address of the pool, which the Service gets, by family.
const FIRST: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x200)),
];
/// Number of consecutive pages from one pod that shows that no other pod serves. kube-proxy selects
/// a pod at random.
const PAGES: usize = 10;
/// Time after which a returning node may take over again, in this test.
const FAILBACK: Duration = Duration::from_secs(3);

#[test]
fn another_node_takes_over_when_the_owner_loses_power_and_returns_the_address_later() {
    run_scenario(&Options::named("death"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &["--failback-delay", "3s"])?;
        }
        step("all speakers have listened, so that the first in line is the first owner", || {
            listened(lab)
        })?;
        let (address, owner) =
            step("a Service is served from a pod that is not on its owner", || {
                serve_elsewhere(lab)
            })?;
        step("the owner loses power", || {
            let report =
                probed(lab, address, "owner powered off", PROBE_LENGTH, || lab.power_off(&owner))?;
            within_target(&report)
        })?;
        let second = step("another node is the one owner", || segment::owner(lab, address))?;
        ensure!(second != owner, "{owner} is powered off and still owns the address");
        step("it gets its address back some time after its power", || {
            let length = FAILBACK + PROBE_LENGTH;
            let report =
                probed(lab, address, "owner powered on again", length, || lab.power_on(&owner))?;
            within_target(&report)?;
            wait::until("failback", pools::STATE_MAX, || {
                let now = segment::owner(lab, address)?;
                Ok((now == owner).then_some(()))
            })
        })
    });
}

/// Waits until every speaker is ready and has listened long enough to claim.
pub(crate) fn listened(lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        wait::until(&format!("the speaker of {node} is ready"), pools::STATE_MAX, || {
            let (status, words) = readyz(lab, &node)?;
            ensure!(status == 200, "{status}: {words}");
            Ok(Some(()))
        })?;
    }
    wait::during(LISTEN_PHASE * 2, || Ok(()))
}

/// Probes the Service while `event` happens, and prints the client's result.
pub(crate) fn probed(
    lab: &Lab,
    address: impl Into<IpAddr>,
    name: &str,
    length: Duration,
    event: impl FnOnce() -> Result<()>,
) -> Result<ProbeReport> {
    let server = services::http(address);
    let probing = lab.start_probe(server, length, PROBE_STEP);
    lab.http_get(CLIENT, server, "/").context("a page before the event")?;
    event()?;
    let report = probing.finish()?;
    let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
    print_measured(&format!("{name}: {lost} of {sent} connections lost, longest gap {gap:.0} ms"));
    Ok(report)
}

/// Checks that the client saw no gap above the limit.
pub(crate) fn within_target(report: &ProbeReport) -> Result<()> {
    let limit = GAP_MAX.as_secs_f64() * 1000.0;
    ensure!(report.longest_gap_ms < limit, "the gap is above {limit} ms: {report:#?}");
    ensure!(report.ok > report.sent / 2, "too few pages: {report:#?}");
    Ok(())
}

/// Serves a page from a pod on the node with the worst rank for the address, so that its owner can
/// fail without the pod. Returns the address and its owner. The owner need not be the node with the
/// best rank: a speaker that has listened for longer claims first.
pub(crate) fn serve_elsewhere(lab: &Lab) -> Result<(IpAddr, String)> {
    let (address, mut nodes) = (lab.families().first(FIRST), lab.nodes());
    nodes.sort_by_key(|node| order(node, address));
    let (first, last) = (nodes.first().context("a node")?, nodes.last().context("a node")?);
    services::apply_pool_and_pod(lab, last)?;
    lab.apply_objects(&[services::service("web", json!({}))])?;
    services::wait_addresses(lab, "web", &[&address.to_string()])?;
    let owner = segment::wait_owner(lab, address)?;
    let mut pod = "web";
    if owner == *last {
        pod = "web2";
        lab.pod(pod, first, &services::WEB)?;
        lab.remove_pod("web")?;
    }
    all_forward_to(lab, pod, |host| lab.families().first(host.addresses()))?;
    Ok((address, owner))
}

/// Waits until every node forwards connections to its own address of a family to this pod and no
/// other.
pub(crate) fn all_forward_to(
    lab: &Lab,
    pod: &str,
    address: impl Fn(&Host) -> IpAddr,
) -> Result<()> {
    let service = services::get(lab, "web")?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = ports
        .first()
        .and_then(|port| u16::try_from(port.node_port?).ok())
        .context("a node port")?;
    lab.nodes().iter().try_for_each(|node| {
        let host = Host::named(node).context("a node")?;
        forwards_to(lab, node, SocketAddr::new(address(&host), port), pod)
    })
}

/// Waits until kube-proxy on a node forwards connections to this pod, so that the test does not
/// measure kube-proxy.
pub(crate) fn forwards_to(lab: &Lab, node: &str, server: SocketAddr, pod: &str) -> Result<()> {
    wait::until(&format!("{node} forwards to {pod}"), pools::STATE_MAX, || {
        for _ in 0..PAGES {
            let page = lab.http_get(CLIENT, server, "/")?;
            ensure!(
                page.body.split_whitespace().next() == Some(pod),
                "another pod replied: {:?}",
                page.body
            );
        }
        Ok(Some(()))
    })
}

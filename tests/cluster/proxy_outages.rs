//! kube-proxy is killed, stalled and restarted under load. A node with an unhealthy kube-proxy
//! hands its addresses over. A node whose kube-proxy restarts keeps its addresses, because the
//! kernel's rules outlive the process.

use crate::node_failure::serve_from_other_node;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::speakers::{announcements_logged, wait_proxy_health};
use crate::under_load::{check_owner_stays, run_without_loss, wait_moved};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::nodes::proxy_name;
use ferrolb_lab::wait::WorkClock;
use ferrolb_lab::{Lab, Options, Signal};
use ferrolb_proto::api::KubeProxyState;
use std::net::IpAddr;
use std::time::Duration;

/// Minimum time until a kube-proxy that does not reply counts as unhealthy: the limit is 10 s. The
/// limits of this scenario are times of a [`WorkClock`].
pub(crate) const UNHEALTHY_AFTER_MIN: Duration = Duration::from_secs(8);
/// Maximum time until an address leaves a node whose kube-proxy does not reply.
pub(crate) const UNHEALTHY_AFTER_MAX: Duration = Duration::from_secs(18);
/// Maximum number of moves while all kube-proxies are stopped and started. The three speakers check
/// at different times within a second. Until all of them have detected the outage, the address may
/// move to a node whose speaker has not. After the restart, the address may move to the first node
/// that is healthy again.
const ALL_STOPPED_MOVES_MAX: usize = 3;
/// Time for which an address must stay with its owner.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn an_address_leaves_a_node_with_an_unhealthy_kube_proxy() {
    run_scenario(&Options::named("proxyoutages"), |lab| {
        lab.start_ferrolb()?;
        let (address, first) =
            step("a Service is served by a pod that is not on the owner", || {
                serve_from_other_node(lab)
            })?;
        step("every speaker reports that kube-proxy is healthy", || wait_all_healthy(lab))?;
        let second =
            step("the owner's kube-proxy stalls, and the address moves after 10 s", || {
                let second =
                    run_without_loss(lab, address, ("kube-proxy of the owner stalled", 1), || {
                        lab.signal(&proxy_name(&first), Signal::STOP)?;
                        wait_moved_late(lab, address, &first, "stalled")
                    })?;
                wait_proxy_health(lab, &first, KubeProxyState::Unhealthy)?;
                Ok(second)
            })?;
        step("kube-proxy continues, and the address stays", || {
            run_without_loss(lab, address, ("kube-proxy continues", 0), || {
                lab.signal(&proxy_name(&first), Signal::CONT)?;
                wait_proxy_health(lab, &first, KubeProxyState::Healthy)?;
                check_owner_stays(lab, address, &second, SETTLED)
            })
        })?;
        step("all kube-proxies are restarted at once, and the address stays", || {
            run_without_loss(lab, address, ("all kube-proxies restarted at once", 0), || {
                restart_all(lab, address, &second)
            })
        })?;
        step("the owner's kube-proxy is killed, and the address moves after 10 s", || {
            run_without_loss(lab, address, ("kube-proxy of the owner killed", 1), || {
                lab.stop(&proxy_name(&second), Signal::KILL)?;
                wait_moved_late(lab, address, &second, "killed").map(drop)
            })
        })?;
        step("the killed kube-proxy is restarted, and the address stays", || {
            check_recovery(lab, address, &second)
        })?;
        // Last step, because for a minute after two moves only the health of a node moves the
        // address.
        step(
            "all kube-proxies are stopped until each is unhealthy, and the address moves three times at most",
            || {
                run_without_loss(
                    lab,
                    address,
                    ("all kube-proxies stopped", ALL_STOPPED_MOVES_MAX),
                    || stop_all(lab, address),
                )
            },
        )
    });
}

fn wait_all_healthy(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| wait_proxy_health(lab, node, KubeProxyState::Healthy))
}

/// Checks that the address stays with its owner, whose kube-proxy does not reply any more, until
/// kube-proxy counts as unhealthy, and then moves. Prints the time, and returns the next owner.
fn wait_moved_late(lab: &Lab, address: IpAddr, owner: &str, event: &str) -> Result<String> {
    let clock = WorkClock::start();
    check_owner_stays(lab, address, owner, UNHEALTHY_AFTER_MIN)?;
    let next = wait_moved(lab, address, owner)?;
    let after = clock.within(UNHEALTHY_AFTER_MAX).context("the address moves")?;
    print_measured(&format!(
        "kube-proxy of the owner {event}: another node replies after {:.1} s",
        after.as_secs_f64()
    ));
    Ok(next)
}

fn restart_all(lab: &Lab, address: IpAddr, owner: &str) -> Result<()> {
    let proxies: Vec<String> = lab.nodes().iter().map(|node| proxy_name(node)).collect();
    proxies.iter().try_for_each(|proxy| lab.stop(proxy, Signal::KILL))?;
    proxies.iter().try_for_each(|proxy| lab.restart(proxy))?;
    check_owner_stays(lab, address, owner, SETTLED)?;
    wait_all_healthy(lab)
}

fn stop_all(lab: &Lab, address: IpAddr) -> Result<()> {
    let (proxies, before) = (
        lab.nodes().iter().map(|node| proxy_name(node)).collect::<Vec<_>>(),
        announcements_logged(lab),
    );
    proxies.iter().try_for_each(|proxy| lab.stop(proxy, Signal::KILL))?;
    lab.nodes()
        .iter()
        .try_for_each(|node| wait_proxy_health(lab, node, KubeProxyState::Unhealthy))?;
    let moves_while_stopped = announcements_logged(lab) - before;
    proxies.iter().try_for_each(|proxy| lab.restart(proxy))?;
    wait_all_healthy(lab)?;
    let owner = segment::wait_owner(lab, address)?;
    check_owner_stays(lab, address, &owner, SETTLED)?;
    let moves = announcements_logged(lab) - before;
    print_measured(&format!(
        "all kube-proxies stopped: {moves_while_stopped} moves, and {} after the restart",
        moves - moves_while_stopped
    ));
    ensure!(moves <= ALL_STOPPED_MOVES_MAX, "the address moved {moves} times");
    Ok(())
}

fn check_recovery(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    run_without_loss(lab, address, ("kube-proxy restarted", 0), || {
        wait_proxy_health(lab, node, KubeProxyState::Unhealthy)?;
        let owner = segment::owner(lab, address)?;
        lab.restart(&proxy_name(node))?;
        wait_proxy_health(lab, node, KubeProxyState::Healthy)?;
        check_owner_stays(lab, address, &owner, SETTLED)
    })
}

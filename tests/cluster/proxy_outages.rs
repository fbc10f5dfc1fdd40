//! kube-proxy is killed, stalled and restarted under load. A node with an unhealthy kube-proxy
//! hands over. A node whose kube-proxy is upgraded keeps its addresses, because the kernel's rules
//! outlive the process.

use crate::node_failure::serve_elsewhere;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::speakers::{announcements_logged, wait_proxy_health};
use crate::under_load::{stays, wait_moved, without_loss};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::nodes::proxy_name;
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::api::KubeProxyState;
use std::net::IpAddr;
use std::time::Duration;

/// Maximum time until a move after kube-proxy stalls: it fails two checks, a second apart, after a
/// second each. Three times as much for a busy machine.
const STALLED_MAX: Duration = Duration::from_secs(9);
/// Minimum time until a missing kube-proxy counts as unhealthy: the limit is 10 s.
pub(crate) const GONE_MIN: Duration = Duration::from_secs(8);
/// Maximum time for the same.
pub(crate) const GONE_MAX: Duration = Duration::from_secs(18);
/// Time for which all kube-proxies are stopped: each counts as unhealthy after 10 s.
const AWAY: Duration = Duration::from_secs(15);
/// Maximum number of moves. Each speaker checks at its own offset within a second, so some detect
/// the outage before others. Until the last has, the address may move to a node that has not, over
/// each of the three. After the return it may move to the first node that detects it.
const AWAY_MOVES_MAX: usize = 3;
/// Time in which nothing may move without need.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn an_address_leaves_a_node_with_an_unhealthy_kube_proxy_but_not_one_where_it_restarts() {
    run_scenario(&Options::named("proxyoutages"), |lab| {
        lab.start_ferrolb()?;
        let (address, first) =
            step("a Service is served from a pod that is not on its owner", || {
                serve_elsewhere(lab)
            })?;
        step("every speaker says that its data path works", || healthy(lab))?;
        let second = step("the owner's kube-proxy hangs, and the address moves", || {
            let second = without_loss(lab, address, ("kube-proxy of the owner frozen", 1), || {
                let start = wait::now();
                lab.signal(&proxy_name(&first), Signal::STOP)?;
                let second = wait_moved(lab, address, &first)?;
                measured_move("frozen", start.elapsed(), STALLED_MAX)?;
                Ok(second)
            })?;
            wait_proxy_health(lab, &first, KubeProxyState::Unhealthy)?;
            Ok(second)
        })?;
        step("it goes on, and nothing moves back so soon", || {
            without_loss(lab, address, ("kube-proxy goes on", 0), || {
                lab.signal(&proxy_name(&first), Signal::CONT)?;
                wait_proxy_health(lab, &first, KubeProxyState::Healthy)?;
                stays(lab, address, &second, SETTLED)
            })
        })?;
        step("all kube-proxies are restarted at once, and nothing moves", || {
            without_loss(lab, address, ("all kube-proxies restarted at once", 0), || {
                restart_all(lab, address, &second)
            })
        })?;
        step(
            "the owner's kube-proxy is killed: nothing moves for 10 s, and then the address does",
            || {
                without_loss(lab, address, ("kube-proxy of the owner killed", 1), || {
                    let start = wait::now();
                    lab.stop(&proxy_name(&second), Signal::KILL)?;
                    stays(lab, address, &second, GONE_MIN)?;
                    wait_moved(lab, address, &second)?;
                    measured_move("killed", start.elapsed(), GONE_MAX)
                })
            },
        )?;
        step("it is back, and nothing moves back so soon", || {
            wait_recovered(lab, address, &second)
        })?;
        // Last step: after two moves the address is damped for a minute, and only health moves it.
        step(
            "all kube-proxies are away for 15 s at once: as many are unhealthy as before, and it rests",
            || {
                without_loss(
                    lab,
                    address,
                    ("all kube-proxies away for 15 s", AWAY_MOVES_MAX),
                    || all_away(lab, address),
                )
            },
        )
    });
}

fn healthy(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| wait_proxy_health(lab, node, KubeProxyState::Healthy))
}

fn measured_move(what: &str, after: Duration, limit: Duration) -> Result<()> {
    print_measured(&format!(
        "kube-proxy of the owner {what}: another node answers after {:.1} s",
        after.as_secs_f64()
    ));
    ensure!(after < limit, "it took {after:?}, more than {limit:?}");
    Ok(())
}

fn restart_all(lab: &Lab, address: IpAddr, owner: &str) -> Result<()> {
    let proxies: Vec<String> = lab.nodes().iter().map(|node| proxy_name(node)).collect();
    proxies.iter().try_for_each(|proxy| lab.stop(proxy, Signal::KILL))?;
    proxies.iter().try_for_each(|proxy| lab.restart(proxy))?;
    stays(lab, address, owner, SETTLED)?;
    healthy(lab)
}

fn all_away(lab: &Lab, address: IpAddr) -> Result<()> {
    let (proxies, before) = (
        lab.nodes().iter().map(|node| proxy_name(node)).collect::<Vec<_>>(),
        announcements_logged(lab),
    );
    proxies.iter().try_for_each(|proxy| lab.stop(proxy, Signal::KILL))?;
    wait::during(AWAY, || Ok(()))?;
    lab.nodes()
        .iter()
        .try_for_each(|node| wait_proxy_health(lab, node, KubeProxyState::Unhealthy))?;
    let meanwhile = announcements_logged(lab) - before;
    proxies.iter().try_for_each(|proxy| lab.restart(proxy))?;
    healthy(lab)?;
    let owner = segment::wait_owner(lab, address)?;
    stays(lab, address, &owner, SETTLED)?;
    let all = announcements_logged(lab) - before;
    print_measured(&format!(
        "all kube-proxies away for 15 s: {meanwhile} moves, and {} when they are back",
        all - meanwhile
    ));
    ensure!(all <= AWAY_MOVES_MAX, "the address moved {all} times");
    Ok(())
}

fn wait_recovered(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    without_loss(lab, address, ("kube-proxy started again", 0), || {
        wait_proxy_health(lab, node, KubeProxyState::Unhealthy)?;
        let owner = segment::owner(lab, address)?;
        lab.restart(&proxy_name(node))?;
        wait_proxy_health(lab, node, KubeProxyState::Healthy)?;
        stays(lab, address, &owner, SETTLED)
    })
}

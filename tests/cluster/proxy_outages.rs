//! kube-proxy is killed, frozen and restarted under load: a node whose data path is broken hands over, and one that is only being upgraded
//! keeps what it has, for the kernel's rules outlive the process.

use crate::client_wire;
use crate::node_death::serve_elsewhere;
use crate::speakers::{taken, wait_data_path};
use crate::stage::{measured, play, step};
use crate::under_load::{stays, unharmed, wait_moved};
use anyhow::{Result, ensure};
use ferrolb_proto::api::DataPathState;
use ferrolb_tests::cluster::nodes::proxy_name;
use ferrolb_tests::{Lab, Options, Signal, wait};
use std::net::IpAddr;
use std::time::Duration;

/// A kube-proxy that hangs fails two looks, a second apart, after a second each; three times as much for a busy machine.
const FROZEN_MAX: Duration = Duration::from_secs(9);
/// One that is gone is missed after 10 s, and not before.
pub(crate) const GONE_MIN: Duration = Duration::from_secs(8);
/// The longest that it may take then.
pub(crate) const GONE_MAX: Duration = Duration::from_secs(18);
/// How long all of them are away: each is missed after 10 s.
const AWAY: Duration = Duration::from_secs(15);
/// Each speaker asks in a second of its own, so that some find out before others. Until the last has, the address may go to who has not yet,
/// over each of the three; and when kube-proxy is back, to who finds that out first.
const AWAY_MOVES_MAX: usize = 3;
/// How long is looked that nothing moves without need.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn an_address_leaves_a_node_whose_kube_proxy_is_broken_and_not_one_where_it_restarts() {
    play(&Options::named("proxyoutages"), |lab| {
        lab.start_ferrolb()?;
        let (address, first) =
            step("a Service is served from a pod that is not on its owner", || serve_elsewhere(lab))?;
        step("every speaker says that its data path works", || healthy(lab))?;
        let second = step("the owner's kube-proxy hangs, and the address moves", || {
            let second = unharmed(lab, address, ("kube-proxy of the owner frozen", 1), || {
                let start = wait::now();
                lab.signal(&proxy_name(&first), Signal::STOP)?;
                let second = wait_moved(lab, address, &first)?;
                told("frozen", start.elapsed(), FROZEN_MAX)?;
                Ok(second)
            })?;
            wait_data_path(lab, &first, DataPathState::Unhealthy)?;
            Ok(second)
        })?;
        step("it goes on, and nothing moves back so soon", || {
            unharmed(lab, address, ("kube-proxy goes on", 0), || {
                lab.signal(&proxy_name(&first), Signal::CONT)?;
                wait_data_path(lab, &first, DataPathState::Healthy)?;
                stays(lab, address, &second, SETTLED)
            })
        })?;
        step("all kube-proxies are restarted at once, and nothing moves", || {
            unharmed(lab, address, ("all kube-proxies restarted at once", 0), || restart_all(lab, address, &second))
        })?;
        step("the owner's kube-proxy is killed: nothing moves for 10 s, and then the address does", || {
            unharmed(lab, address, ("kube-proxy of the owner killed", 1), || {
                let start = wait::now();
                lab.stop(&proxy_name(&second), Signal::KILL)?;
                stays(lab, address, &second, GONE_MIN)?;
                wait_moved(lab, address, &second)?;
                told("killed", start.elapsed(), GONE_MAX)
            })
        })?;
        step("it is back, and nothing moves back so soon", || back(lab, address, &second))?;
        // The last step, because after two moves the address is best left alone for a minute: nothing but health moves it.
        step("all kube-proxies are away for 15 s at once: as many are unhealthy as before, and it rests", || {
            unharmed(lab, address, ("all kube-proxies away for 15 s", AWAY_MOVES_MAX), || all_away(lab, address))
        })
    });
}

fn healthy(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| wait_data_path(lab, node, DataPathState::Healthy))
}

fn told(what: &str, after: Duration, limit: Duration) -> Result<()> {
    measured(&format!("kube-proxy of the owner {what}: another node answers after {:.1} s", after.as_secs_f64()));
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
    let (proxies, before) = (lab.nodes().iter().map(|node| proxy_name(node)).collect::<Vec<_>>(), taken(lab));
    proxies.iter().try_for_each(|proxy| lab.stop(proxy, Signal::KILL))?;
    wait::during(AWAY, || Ok(()))?;
    lab.nodes().iter().try_for_each(|node| wait_data_path(lab, node, DataPathState::Unhealthy))?;
    let meanwhile = taken(lab) - before;
    proxies.iter().try_for_each(|proxy| lab.restart(proxy))?;
    healthy(lab)?;
    let owner = client_wire::wait_owner(lab, address)?;
    stays(lab, address, &owner, SETTLED)?;
    let all = taken(lab) - before;
    measured(&format!("all kube-proxies away for 15 s: {meanwhile} moves, and {} when they are back", all - meanwhile));
    ensure!(all <= AWAY_MOVES_MAX, "the address moved {all} times");
    Ok(())
}

fn back(lab: &Lab, address: IpAddr, node: &str) -> Result<()> {
    unharmed(lab, address, ("kube-proxy started again", 0), || {
        wait_data_path(lab, node, DataPathState::Unhealthy)?;
        let owner = client_wire::owner(lab, address)?;
        lab.restart(&proxy_name(node))?;
        wait_data_path(lab, node, DataPathState::Healthy)?;
        stays(lab, address, &owner, SETTLED)
    })
}

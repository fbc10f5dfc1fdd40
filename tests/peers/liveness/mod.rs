//! Failed and stalled speakers whose gobgpd continues to run; README.md has the drawing.

mod kubelet;

use crate::expect;
use crate::objects::{self, object};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::cluster::ferrolb::speaker_name;
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::scenario::{print_measured, run_scenario, step};
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, Options, Signal, setup, wait};
use kubelet::Kubelet;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const ROUTER: &str = ROUTERS[0];
/// Additional time for the requests of the probe, and for a busy machine.
const SLACK: Duration = Duration::from_secs(15);
/// Time after which a restarted gobgpd of the lab runs. It is longer than the 5 s for which
/// gobgpd's start script waits until the speaker has removed the old socket.
const STARTED_MAX: Duration = Duration::from_secs(8);

#[test]
fn routes_without_a_speaker_end_with_the_liveness_probe() {
    run_scenario(&Options { bgp: true, ..Options::named("liveness") }, |lab| {
        let [killed, stalled, healthy] = [1, 2, 3].map(Host::node);
        lab.start_ferrolb()?;
        step("the API server accepts the install file for BGP", || check_install_file(lab))?;
        let router = step("FRR has routes through three nodes", || {
            start_router(lab, &[&killed, &stalled, &healthy])
        })?;
        let mut kubelet = Kubelet::new(lab)?;
        let restart_max = kubelet.restart_max();
        step("one speaker is killed and one is stalled, and their routes stay at first", || {
            lab.stop(&speaker_name(&killed.name), Signal::KILL)?;
            lab.signal(&speaker_name(&stalled.name), Signal::STOP)?;
            ensure!(
                expect::next_hops(&router)? == addresses(&[&killed, &stalled, &healthy]),
                "the router lost paths at once"
            );
            Ok(())
        })?;
        step("the routes are withdrawn when the liveness probe has failed too often", || {
            let start = wait::now();
            let remaining = addresses(&[&healthy]);
            wait::until("only the paths of the healthy node remain", restart_max + SLACK, || {
                kubelet.probe_if_due()?;
                let now = expect::next_hops(&router)?;
                ensure!(
                    addresses(&[&healthy]).is_subset(&now),
                    "the router lost the paths of the healthy node: {now:?}"
                );
                Ok((now == remaining).then_some(()))
            })?;
            let took = wait::now() - start;
            print_measured(&format!(
                "speakers killed and stalled: their routes are withdrawn after {took:?}; the limit is {restart_max:?}"
            ));
            ensure!(
                took >= restart_max / 2,
                "the routes were withdrawn after {took:?}, too early for an upgrade of the speaker"
            );
            Ok(())
        })?;
        step("the speakers run again, and the routes return", || {
            lab.restart(&speaker_name(&killed.name))?;
            lab.signal(&speaker_name(&stalled.name), Signal::CONT)?;
            expect::wait_paths_through(&router, &[&killed, &stalled, &healthy])
        })?;
        step("a gobgpd without a usable socket is restarted by the liveness probe", || {
            lab.stop(&speaker_name(&killed.name), Signal::KILL)?;
            lab.stop(&bgp::process_name(&killed.name), Signal::KILL)?;
            lab.restart(&bgp::process_name(&killed.name))?;
            wait::during(STARTED_MAX, || Ok(()))?;
            lab.restart(&speaker_name(&killed.name))?;
            let start = wait::now();
            // The routers keep the routes, so the test checks the sessions.
            wait::until("all sessions are established", restart_max + SLACK, || {
                kubelet.probe_if_due()?;
                Ok(router.sessions()?.iter().all(|session| session.established).then_some(()))
            })?;
            let took = wait::now() - start;
            print_measured(&format!(
                "gobgpd without a socket: its sessions are established {took:?} after the speaker's start"
            ));
            ensure!(
                took >= restart_max / 2,
                "gobgpd was not restarted, because it had a usable socket"
            );
            Ok(())
        })?;
        router.stop()
    });
}

fn start_router<'a>(lab: &'a Lab, nodes: &[&Host]) -> Result<Router<'a>> {
    let router = Router::start_with_peering(
        lab,
        RouterKind::Frr,
        ROUTER,
        &Peering { graceful: true, ..Peering::with_nodes(lab, ROUTER)? },
    )?;
    nodes.iter().try_for_each(|node| {
        lab.pod(&format!("web-{}", node.name), &node.name, &[("app", "web")])
    })?;
    let mut created = objects::service().to_vec();
    created.push(object("v1beta1", "BGPAdvertisement", "all", &json!({})));
    // With graceful restart, routers keep the routes of a peer that restarts, but the peers of this
    // test do not return.
    let mut peers = objects::peers(lab, ROUTER)?;
    peers.iter_mut().for_each(|peer| peer["spec"]["enableGracefulRestart"] = true.into());
    created.extend(peers);
    lab.apply_objects(&created)?;
    expect::wait_paths_through(&router, nodes)?;
    Ok(router)
}

/// Returns the addresses of these nodes.
fn addresses(nodes: &[&Host]) -> BTreeSet<IpAddr> {
    nodes.iter().flat_map(|node| node.addresses()).collect()
}

/// Applies the install file as a dry run, because the lab has no kubelet to run the workloads.
fn check_install_file(lab: &Lab) -> Result<()> {
    let file = setup::repository().join("deploy/install-bgp.yaml");
    lab.kubectl(&["apply", "--dry-run=server", "-f", &file.display().to_string()])?;
    Ok(())
}

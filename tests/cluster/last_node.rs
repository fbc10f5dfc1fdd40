//! Two nodes on a segment without any other host: when one node loses power, the other node
//! announces every address.

use crate::node_failure::wait_listened;
use crate::pools::{self, STATE_MAX};
use crate::scenario::{print_measured, run_scenario, step};
use crate::services;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_lab::wait::WorkClock;
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Number of addresses: more than the number of hosts that a speaker remembers.
const ADDRESSES: usize = 12;
/// Maximum time until the last node announces all addresses: three times the expected time, for a
/// busy machine.
const TAKEOVER_MAX: Duration = Duration::from_millis(3 * 1_300);
/// Time between the restart of the last node's speaker and the failure of the other node.
const RESTART_TO_FAILURE: Duration = Duration::from_secs(9);
const LAST_NODE: &str = "node1";
const FAILED_NODE: &str = "node2";
const FAILED_POD: &str = "web2";

#[test]
fn the_last_node_announces_all_addresses_without_other_hosts() {
    run("last", &[]);
}

#[test]
fn the_last_node_takes_over_with_gratuitous_interval() {
    run("last10", &["--gratuitous-interval", "10s"]);
}

fn run(name: &str, flags: &[&str]) {
    run_scenario(&Options { nodes: 2, ..Options::named(name) }, |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &[&["--failback-delay", "3s"], flags].concat())?;
        }
        wait_listened(lab)?;
        step("both nodes announce some of the twelve addresses", || {
            apply_objects_and_pod(lab)?;
            wait::until("both nodes announce", STATE_MAX, || {
                let (last, failed) =
                    (owned_addresses(lab, LAST_NODE)?, owned_addresses(lab, FAILED_NODE)?);
                ensure!(
                    last + failed == ADDRESSES && last > 0 && failed > 0,
                    "{LAST_NODE} announces {last} addresses, and {FAILED_NODE} {failed}"
                );
                Ok(Some(()))
            })
        })?;
        step("a node loses power", || fail_node(lab, &format!("{name}: settled")))?;
        step("the controller confirms that the node failed, and its pod is marked", || {
            wait_marked(lab)
        })?;
        step("a node loses power 9 s after a restart of the other node's speaker", || {
            lab.power_on(FAILED_NODE)?;
            wait_owned(lab, FAILED_NODE, |count| count > 0)?;
            lab.stop(&speaker_name(LAST_NODE), Signal::TERM)?;
            wait_owned(lab, FAILED_NODE, |count| count == ADDRESSES)?;
            lab.restart(&speaker_name(LAST_NODE))?;
            wait::during(RESTART_TO_FAILURE, || Ok(()))?;
            fail_node(lab, &format!("{name}: restarted"))
        })
    });
}

/// Disconnects all hosts but the two nodes, powers one node off, and waits until the other one
/// announces all addresses.
fn fail_node(lab: &Lab, name: &str) -> Result<()> {
    let others =
        |up| [CLIENT, CONTROL_PLANE].into_iter().try_for_each(|host| lab.set_link(host, up));
    others(false)?;
    let start = WorkClock::start();
    lab.power_off(FAILED_NODE)?;
    wait_owned(lab, LAST_NODE, |count| count == ADDRESSES)?;
    let took = start.within(TAKEOVER_MAX).context("the last node announces all addresses");
    others(true)?;
    let took = took?;
    print_measured(&format!(
        "{name}: the last node announces {ADDRESSES} addresses after {} ms",
        took.as_millis()
    ));
    Ok(())
}

/// Waits until the pod on the failed node is marked as not Ready. The last speaker reports the node
/// as silent, and the controller connects to its kubelet's port without a reply.
fn wait_marked(lab: &Lab) -> Result<()> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].reason}"#;
    wait::until("the pod on the failed node is marked", STATE_MAX, || {
        let reason = lab.kubectl(&["get", "pod", FAILED_POD, "-o", path])?;
        ensure!(reason.trim() == "NodeSilent", "the reason is {reason:?}");
        Ok(Some(()))
    })
}

/// Creates a pool, a Service for each of its addresses, and one pod for all Services on the last
/// node.
fn apply_objects_and_pod(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[
        pools::pool("lan", &["172.30.0.200-172.30.0.211"]),
        pools::advertisement(),
    ])?;
    lab.pod("web", LAST_NODE, &services::WEB)?;
    lab.pod(FAILED_POD, FAILED_NODE, &services::WEB)?;
    let web_services: Vec<_> =
        (0..ADDRESSES).map(|n| services::service(&format!("web{n}"), json!({}))).collect();
    lab.apply_objects(&web_services)
}

/// Returns the number of addresses that the speaker of a node announces. The request comes from the
/// node itself, so that it causes no frame on the segment.
fn owned_addresses(lab: &Lab, node: &str) -> Result<usize> {
    let page =
        lab.http_get(node, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT), "/metrics")?;
    let series =
        page.body.lines().filter(|line| line.starts_with("ferrolb_speaker_owned_addresses{"));
    Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum())
}

fn wait_owned(lab: &Lab, node: &str, enough: impl Fn(usize) -> bool) -> Result<()> {
    wait::until(&format!("{node} announces the expected number of addresses"), STATE_MAX, || {
        let count = owned_addresses(lab, node)?;
        ensure!(enough(count), "{node} announces {count} addresses");
        Ok(Some(()))
    })
}

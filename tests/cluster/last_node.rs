//! Two nodes on a segment where no other host sends or replies: when one loses power, the other
//! announces every address.

use crate::node_failure::listened;
use crate::pools::{self, STATE_MAX};
use crate::scenario::{print_measured, run_scenario, step};
use crate::services;
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Number of addresses: more than the number of hosts that a speaker remembers.
const ADDRESSES: usize = 12;
/// Maximum time until the last node announces all addresses: three times the expected time, for a
/// busy machine.
const TAKEN_MAX: Duration = Duration::from_millis(3 * 1_300);
/// Time between the restart of a speaker and the failure of its peer.
const RESTARTED_BEFORE: Duration = Duration::from_secs(9);
const LAST: &str = "node1";
const FAILED: &str = "node2";

#[test]
fn the_last_node_announces_every_address_though_no_other_host_replies() {
    run("last", &[]);
}

#[test]
fn the_last_node_announces_every_address_with_repeated_announcements_every_ten_seconds() {
    run("last10", &["--gratuitous-interval", "10s"]);
}

fn run(name: &str, flags: &[&str]) {
    run_scenario(&Options { nodes: 2, ..Options::named(name) }, |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &[&["--failback-delay", "3s"], flags].concat())?;
        }
        listened(lab)?;
        step("twelve addresses are announced, by both nodes", || {
            furnish(lab)?;
            wait::until("both nodes announce", STATE_MAX, || {
                let (last, failed) = (owned(lab, LAST)?, owned(lab, FAILED)?);
                ensure!(
                    last + failed == ADDRESSES && last > 0 && failed > 0,
                    "{LAST}: {last}, {FAILED}: {failed}"
                );
                Ok(Some(()))
            })
        })?;
        step("a node loses power", || fails(lab, &format!("{name}: settled")))?;
        step("a node loses power 9 s after the speaker of the other one was restarted", || {
            lab.power_on(FAILED)?;
            wait_owned(lab, FAILED, |count| count > 0)?;
            lab.stop(&speaker_name(LAST), Signal::TERM)?;
            wait_owned(lab, FAILED, |count| count == ADDRESSES)?;
            lab.restart(&speaker_name(LAST))?;
            wait::during(RESTARTED_BEFORE, || Ok(()))?;
            fails(lab, &format!("{name}: restarted"))
        })
    });
}

/// Disconnects all hosts but the two nodes and powers one node off: the other must announce
/// everything.
fn fails(lab: &Lab, name: &str) -> Result<()> {
    let others =
        |up| [CLIENT, CONTROL_PLANE].into_iter().try_for_each(|host| lab.set_link(host, up));
    others(false)?;
    let start = wait::now();
    lab.power_off(FAILED)?;
    wait_owned(lab, LAST, |count| count == ADDRESSES)?;
    let taken = start.elapsed();
    print_measured(&format!(
        "{name}: the last node announces {ADDRESSES} addresses after {} ms",
        taken.as_millis()
    ));
    others(true)?;
    ensure!(taken < TAKEN_MAX, "it took {taken:?}");
    Ok(())
}

/// Creates a pool of the addresses, a Service for each, and a pod for them on the node that stays.
fn furnish(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[
        pools::pool("lan", &["172.30.0.200-172.30.0.211"]),
        pools::advertisement(),
    ])?;
    lab.pod("web", LAST, &services::WEB)?;
    let all: Vec<_> =
        (0..ADDRESSES).map(|n| services::service(&format!("web{n}"), json!({}))).collect();
    lab.apply_objects(&all)
}

/// Returns the number of addresses that the speaker of a node announces. The request is local to
/// the node, so that it causes no frame on the segment.
fn owned(lab: &Lab, node: &str) -> Result<usize> {
    let page =
        lab.http_get(node, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ADMIN_PORT), "/metrics")?;
    let series =
        page.body.lines().filter(|line| line.starts_with("ferrolb_speaker_owned_addresses{"));
    Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum())
}

fn wait_owned(lab: &Lab, node: &str, enough: impl Fn(usize) -> bool) -> Result<()> {
    wait::until(&format!("{node} announces what it should"), STATE_MAX, || {
        let count = owned(lab, node)?;
        ensure!(enough(count), "it announces {count} addresses");
        Ok(Some(()))
    })
}

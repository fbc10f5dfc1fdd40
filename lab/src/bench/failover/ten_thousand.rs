//! Row of 10,000 IPv6 addresses: time from the speakers' start until each address has replied,
//! multicast groups for the solicitations, memory of the speakers, and a power failure of the
//! owner.
//!
//! The Services exist before the first speaker starts. Both times start with the first speaker. One
//! ends when each address has replied to the client once: the client sends multicast solicitations
//! for all missing addresses, 5,000 per second, repeatedly. The other one ends when all three nodes
//! are in all 10,000 solicited-node groups. The memory is measured as in [`crate::bench::memory`],
//! after that.
//!
//! Then the owner loses power, as in [`super::many`]. The two remaining nodes share the addresses,
//! and each announces 2,500 per second, so the announcements alone take 2 s.

use super::many;
use crate::bench::report::Findings;
use crate::bench::segment::ClientSocket;
use crate::bench::services::{POOL, V6};
use crate::bench::targets::{
    FAILOVER_V6_10000, SPEAKER_V6_10000, V6_FIRST_REPLY, V6_GROUPS_JOINED,
};
use crate::bench::{memory, settle, single_owner};
use crate::cluster::ferrolb::speaker_name;
use crate::topology::CLIENT;
use crate::{Lab, wait};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::ndp;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

const SERVICES: usize = 10_000;
/// Maximum time until all addresses reply, and until every node has joined all groups.
const STARTUP_MAX: Duration = Duration::from_secs(120);
/// Solicitations per burst, and the time to wait for the advertisements of a burst: 5,000/s.
const BURST: usize = 50;
const REPLY_WAIT: Duration = Duration::from_millis(10);
/// Interval of the checks whether all nodes have joined the groups.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Runs this row in a lab without FerroLB; `start_speakers` starts all speakers.
pub(super) fn run(
    lab: &Lab,
    runs: usize,
    start_speakers: impl FnOnce() -> Result<()>,
) -> Result<Findings> {
    lab.install_ferrolb()?;
    lab.apply(POOL)?;
    let (owner, mut findings) = (single_owner::choose(lab)?, Findings::default());
    let addresses = single_owner::create_services(lab, "thousands", SERVICES, &V6)?;
    let start = wait::now();
    start_speakers()?;
    let (joined_at, replied_at) = std::thread::scope(|scope| {
        let joining = scope.spawn(|| wait_groups_joined(lab, &addresses));
        let replied_at = wait_replies(lab, &addresses);
        (joining.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), replied_at)
    });
    findings.add(&V6_FIRST_REPLY, (replied_at? - start).as_secs_f64() * 1000.0);
    findings.add(&V6_GROUPS_JOINED, (joined_at? - start).as_secs_f64() * 1000.0);
    settle::wait_settled(lab)?;
    let speakers: Vec<String> = lab.nodes().iter().map(|node| speaker_name(node)).collect();
    memory::measure(lab, &mut findings, &SPEAKER_V6_10000, &speakers)?;
    many::measure_runs(lab, &owner, &addresses, runs, &FAILOVER_V6_10000, &mut findings)?;
    Ok(findings)
}

/// Sends solicitations for all addresses that have not replied, until all have. Returns the time of
/// the last address's first reply.
fn wait_replies(lab: &Lab, addresses: &[IpAddr]) -> Result<Instant> {
    let socket =
        lab.within(CLIENT, || ClientSocket::open(Family::V6)?.with_read_timeout(REPLY_WAIT))??;
    let mut missing: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    let (start, mut last) = (wait::now(), None);
    while !missing.is_empty() {
        ensure!(
            start.elapsed() < STARTUP_MAX,
            "after {STARTUP_MAX:?} {} addresses have not replied",
            missing.len()
        );
        let pending: Vec<IpAddr> = missing.iter().copied().collect();
        for burst in pending.chunks(BURST) {
            burst.iter().try_for_each(|address| socket.send(&socket.request(None, *address)))?;
            let sent = wait::now();
            while sent.elapsed() < REPLY_WAIT {
                if socket
                    .next()?
                    .is_some_and(|claim| claim.is_reply && missing.remove(&claim.address))
                {
                    last = Some(wait::now());
                }
            }
        }
    }
    last.context("there is no address to solicit")
}

/// Returns the time at which every node was in the solicited-node groups of all addresses. All
/// nodes join, because each address has three candidates.
fn wait_groups_joined(lab: &Lab, addresses: &[IpAddr]) -> Result<Instant> {
    let wanted = addresses.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(ndp::solicited_node_group(*address)),
        IpAddr::V4(_) => None,
    });
    let wanted: BTreeSet<Ipv6Addr> = wanted.collect();
    ensure!(
        wanted.len() == addresses.len(),
        "{} addresses have {} groups",
        addresses.len(),
        wanted.len()
    );
    let start = wait::now();
    loop {
        let mut missing = Vec::new();
        for node in lab.nodes() {
            let table =
                lab.within(&node, || fs::read_to_string("/proc/thread-self/net/igmp6"))??;
            missing.push(wanted.difference(&groups(&table)).count());
        }
        if missing.iter().all(|missing| *missing == 0) {
            return Ok(wait::now());
        }
        if start.elapsed() > STARTUP_MAX {
            bail!(
                "after {STARTUP_MAX:?} the nodes have not joined {missing:?} of {} groups",
                wanted.len()
            );
        }
        wait::during(CHECK_INTERVAL, || Ok(()))?;
    }
}

/// Parses the groups of `eth0` in `/proc/net/igmp6`: the group follows the index and the name of
/// the interface, without colons.
fn groups(table: &str) -> BTreeSet<Ipv6Addr> {
    let lines = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == "eth0").then(|| words.next()).flatten()
    });
    lines
        .filter_map(|group| Some(Ipv6Addr::from_bits(u128::from_str_radix(group, 16).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_of_eth0_are_parsed() {
        let table = "\
2    eth0            ff0200000000000000000001ff000200     1 00000004 0
2    eth0            ff020000000000000000000000000001     1 0000000C 0
3    cni0            ff0200000000000000000001ff000201     1 00000004 0
";
        let expect: [Ipv6Addr; 2] =
            ["ff02::1:ff00:200".parse().unwrap(), "ff02::1".parse().unwrap()];
        assert_eq!(groups(table), expect.into());
    }
}

//! ARP and Neighbor Discovery replies for Services' addresses, from one node that owns all of them:
//! latency compared with the kernel's own replies, with few and with many addresses; replies per
//! second; and the cost of replies and sockets to the node.
//!
//! # Method
//!
//! The benchmark runs with one address of each family, with 500, and with 10,000. One node owns all
//! of them, because the others are cordoned. No kube-proxies run, and the controller and the
//! speakers do not run at the same time. A measurement starts when the speakers have sent their
//! last announcement. The modules have the methods: [`turns`] for the latency, [`rate`] for the
//! replies per second, and [`forwarding`] for the cost to forwarded traffic.
//!
//! # Limits
//!
//! Absolute times depend more on the machine than on FerroLB. The ratios to the kernel's replies
//! have a target: those of the medians, and those of the 99th percentiles. The kernel replies at
//! once on any machine, but a process waits for a processor. On a busy machine, the second ratio
//! depends on the scheduler.
//!
//! `perf record` over 40,000 requests shows one function of the speaker (0.8 %) and the clock (0.6
//! %) among the forty most expensive ones. 60 % is the thread going to sleep and the client waking
//! up, and the rest is the kernel's sockets and the lab's switch. Only a reply inside of the kernel
//! would be faster, because it avoids the wake-up.

mod forwarding;
mod rate;
mod turns;

use super::report::Findings;
use super::services::{DUAL, POOL};
use super::single_owner;
use super::stats::Spread;
use super::targets::{REPLIES_1, REPLIES_500, REPLIES_10000, REPLY_RATES};
use crate::cluster::ferrolb::speaker_name;
use crate::topology::Host;
use crate::{Lab, Signal};
use anyhow::Result;
use ferrolb_proto::range::Family;
use std::net::IpAddr;

/// Number of Services at the end, each with an address of both families.
const SERVICES_MAX: usize = 10_000;
/// Seed of the random choice of the requested addresses.
const SEED: u64 = 1;

/// Runs this benchmark in a lab without FerroLB.
///
/// No kube-proxies run, because they would use most of the processor time. For the same reason the
/// controller and the speakers run in turn: no speaker runs while Services are created, and no
/// controller while replies are measured.
///
/// # Errors
/// If a reply is lost, or an address has no owner.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    lab.install_ferrolb()?;
    lab.apply(POOL)?;
    let (owner, nodes) = (single_owner::choose(lab)?, lab.nodes());
    let (mut findings, mut addresses) = (Findings::default(), Vec::new());
    for (services, measures) in
        [(1, &REPLIES_1), (500, &REPLIES_500), (SERVICES_MAX, &REPLIES_10000)]
    {
        let missing = services - addresses.len() / DUAL.len();
        addresses.extend(single_owner::create_services(
            lab,
            &format!("answers{services}"),
            missing,
            &DUAL,
        )?);
        nodes.iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
        single_owner::wait_settled(lab, &owner, addresses.len())?;
        turns::compare(lab, &owner, &addresses, measures, &mut findings)?;
        if services == 1 {
            forwarding::measure(lab, &owner, &mut findings)?;
        }
        if services == SERVICES_MAX {
            REPLY_RATES.iter().try_for_each(|measures| {
                rate::flood(lab, &owner, &addresses, measures, &mut findings)
            })?;
        }
        nodes.iter().try_for_each(|node| lab.stop(&speaker_name(node), Signal::TERM))?;
    }
    Ok(findings)
}

/// Returns the addresses of one family.
fn addresses_of_family(family: Family, addresses: &[IpAddr]) -> Vec<IpAddr> {
    addresses.iter().copied().filter(|address| Family::of(*address) == family).collect()
}

/// Returns a host's own address of one family; its kernel replies for that address.
fn own_address(host: &Host, family: Family) -> IpAddr {
    match family {
        Family::V4 => host.v4().into(),
        Family::V6 => host.v6().into(),
    }
}

fn median(samples: &[f64]) -> Option<f64> {
    Spread::of(samples).map(|spread| spread.median)
}

//! Answers for Services' addresses by ARP and by Neighbor Discovery, of one node that holds all of them: how long they take against its kernel's
//! own, with few and with many addresses; how many it gives in a second, and what they and its sockets cost it.

mod forwarding;
mod rate;
mod turns;

use super::budgets::{ANSWERED_1, ANSWERED_500, ANSWERED_10000, FLOODED};
use super::holder;
use super::report::Findings;
use super::services::{DUAL, POOL};
use super::stats::Spread;
use crate::cluster::ferrolb::speaker_name;
use crate::topology::Host;
use crate::{Lab, Signal};
use anyhow::Result;
use ferrolb_proto::range::Family;
use std::net::IpAddr;

/// How many Services there are in the end, each with an address of both families.
const SERVICES_MAX: usize = 10_000;
/// What the addresses that are asked for are chosen by.
const SEED: u64 = 1;

/// Runs in a lab without FerroLB, and without kube-proxies, which would take the processors for themselves. So would speakers while Services are
/// made, and a controller while answers are measured: they run in turn.
///
/// # Errors
/// When an answer is lost, or the addresses are not owned.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    lab.install_ferrolb()?;
    lab.apply(POOL)?;
    let (owner, nodes) = (holder::choose(lab)?, lab.nodes());
    let (mut findings, mut addresses) = (Findings::default(), Vec::new());
    for (services, known) in [(1, &ANSWERED_1), (500, &ANSWERED_500), (SERVICES_MAX, &ANSWERED_10000)] {
        let missing = services - addresses.len() / DUAL.len();
        addresses.extend(holder::make(lab, &format!("answers{services}"), missing, &DUAL)?);
        nodes.iter().try_for_each(|node| lab.start_speaker(node, &[]))?;
        holder::wait_settled(lab, &owner, addresses.len())?;
        turns::compare(lab, &owner, &addresses, known, &mut findings)?;
        if services == 1 {
            forwarding::measure(lab, &owner, &mut findings)?;
        }
        if services == SERVICES_MAX {
            FLOODED.iter().try_for_each(|known| rate::flood(lab, &owner, &addresses, known, &mut findings))?;
        }
        nodes.iter().try_for_each(|node| lab.stop(&speaker_name(node), Signal::TERM))?;
    }
    Ok(findings)
}

/// Those of a family.
fn of(family: Family, addresses: &[IpAddr]) -> Vec<IpAddr> {
    addresses.iter().copied().filter(|address| Family::of(*address) == family).collect()
}

/// A host's own address of a family, for which its kernel answers.
fn own(host: &Host, family: Family) -> IpAddr {
    match family {
        Family::V4 => host.v4().into(),
        Family::V6 => host.v6().into(),
    }
}

fn median(samples: &[f64]) -> Option<f64> {
    Spread::of(samples).map(|spread| spread.median)
}

//! How long an ARP answer for a Service's address takes, against the same node's kernel answering for its own: one request each in turn from
//! one socket, so that whatever slows the machine slows both. Asked of all hosts, and then of the owner alone.

use super::budgets::{ANSWERED_ALL, ANSWERED_ONE, Answered};
use super::report::Findings;
use super::rest;
use super::services::{self, POOL};
use super::stats::{Spread, ratio};
use super::wire::{Listener, Wire};
use crate::topology::{CLIENT, Host, node_index};
use crate::{Lab, wait};
use anyhow::{Context, Result};
use ferrolb_proto::wire::Mac;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How many answers of each make one set.
const ROUNDS: usize = 1000;
/// How many sets are measured, a pause apart: their median is the figure, so that one busy moment of the machine is not.
const SETS: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How many are asked for before, for the caches' sake.
const WARM_UP: usize = 50;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Runs in a lab with FerroLB and no pool.
///
/// # Errors
/// When an answer is lost: a time without it would be a lie.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    lab.apply(POOL)?;
    rest::wait_for(lab)?;
    let listener = Listener::start(lab)?;
    let assigned = lab.api(async |client| services::create(&client, "answer", 1).await)?;
    super::create::announced(&listener, &assigned)?;
    listener.stop()?;
    let address = assigned.first().context("no Service was created")?.address;
    let wire = lab.within(CLIENT, Wire::open)??;
    let (owner, mac) = owner(lab, &wire, address)?;
    let mut findings = Findings::default();
    for (known, name, whom) in [(&ANSWERED_ALL, "answers", Mac::BROADCAST), (&ANSWERED_ONE, "answers.unicast", mac)] {
        ask_in_turn(&wire, whom, [address, owner.v4()], WARM_UP)?;
        let mut sets = Vec::new();
        for _ in 0..SETS {
            wait::during(PAUSE, || Ok(()))?;
            sets.push(ask_in_turn(&wire, whom, [address, owner.v4()], ROUNDS)?);
        }
        conclude(&mut findings, known, name, &sets)?;
    }
    Ok(findings)
}

/// The node that answers for `address`, and its hardware address.
fn owner(lab: &Lab, wire: &Wire, address: Ipv4Addr) -> Result<(Host, Mac)> {
    let answer = wire.ask(&Host::client(), Mac::BROADCAST, address, ANSWER_MAX)?;
    let (mac, _) = answer.with_context(|| format!("nobody answers for {address}"))?;
    let nodes = lab.nodes().into_iter().filter_map(|node| node_index(&node)).map(Host::node);
    let owner = nodes.into_iter().find(|node| node.mac() == mac.to_string());
    Ok((owner.with_context(|| format!("{mac} is no node of the lab"))?, mac))
}

/// The times of `rounds` answers for each of the two addresses, in microseconds.
fn ask_in_turn(wire: &Wire, whom: Mac, addresses: [Ipv4Addr; 2], rounds: usize) -> Result<Set> {
    let client = Host::client();
    let mut times = [Vec::with_capacity(rounds), Vec::with_capacity(rounds)];
    for round in 0..rounds {
        for (address, times) in addresses.iter().zip(&mut times) {
            let answer = wire.ask(&client, whom, *address, ANSWER_MAX)?;
            let (_, time) = answer.with_context(|| format!("no answer for {address} in round {round}"))?;
            times.push(time.as_secs_f64() * 1e6);
        }
    }
    Ok(times)
}

/// The times of one set: ours and the kernel's.
type Set = [Vec<f64>; 2];

fn conclude(findings: &mut Findings, known: &Answered, name: &str, sets: &[Set]) -> Result<()> {
    for (place, figure) in [median, p99].into_iter().enumerate() {
        let pairs: Vec<(f64, f64)> = sets
            .iter()
            .map(|[ours, kernels]| figure(ours).zip(figure(kernels)))
            .collect::<Option<_>>()
            .unwrap_or_default();
        let ratios: Option<Vec<f64>> = pairs.iter().map(|(our, kernel)| ratio(*our, *kernel)).collect();
        let (ours, kernels): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        findings.add(&known.address[place], median(&ours).context("nothing was asked")?);
        findings.add(&known.kernel[place], median(&kernels).context("nothing was asked")?);
        findings.add(&known.ratio[place], median(&ratios.unwrap_or_default()).context("the kernel took no time")?);
    }
    for (index, who) in ["address", "kernel"].into_iter().enumerate() {
        findings.keep(&format!("{name}.{who}"), sets.iter().flat_map(|set| set[index].iter().copied()).collect());
    }
    Ok(())
}

fn median(samples: &[f64]) -> Option<f64> {
    Spread::of(samples).map(|spread| spread.median)
}

fn p99(samples: &[f64]) -> Option<f64> {
    Spread::of(samples).map(|spread| spread.p99)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_median_set_s_ratio_of_percentiles() {
        let quiet = [vec![60.0, 30.0, 40.0], vec![20.0, 50.0, 10.0]];
        let busy = [vec![9000.0, 9000.0], vec![1.0, 1.0]];
        let mut findings = Findings::default();
        conclude(&mut findings, &ANSWERED_ALL, "answers", &[busy, quiet.clone(), quiet]).unwrap();
        let value = |id: &str| findings.measures.iter().find(|measure| measure.id == id).unwrap().value;
        assert_eq!((value("answers.ratio.p50"), value("answers.ratio.p99")), (2.0, 1.2));
        assert_eq!((value("answers.address.p50"), value("answers.kernel.p99")), (40.0, 50.0));
        assert_eq!(findings.samples["answers.kernel"].len(), 8);
    }

    #[test]
    fn no_answers_are_no_findings() {
        let none = || [Vec::new(), Vec::new()];
        for sets in [vec![], vec![none()], vec![[vec![1.0], Vec::new()]], vec![[vec![1.0], vec![0.0]]]] {
            assert!(conclude(&mut Findings::default(), &ANSWERED_ONE, "answers", &sets).is_err(), "{sets:?}");
        }
    }
}

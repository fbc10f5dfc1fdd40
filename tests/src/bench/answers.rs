//! How long an ARP answer for a Service's address takes, against the same node's kernel answering for its own: one request each in turn from
//! one socket, so that whatever slows the machine slows both.

use super::budgets;
use super::report::Findings;
use super::rest;
use super::services::{self, POOL};
use super::stats::{Spread, ratio};
use super::wire::{Listener, Wire};
use crate::Lab;
use crate::topology::{CLIENT, Host, node_index};
use anyhow::{Context, Result, anyhow, ensure};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How many answers of each are measured.
const ROUNDS: usize = 1000;
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
    let owner = owner(lab, &wire, address)?;
    ask_in_turn(&wire, address, owner.v4(), WARM_UP)?;
    let (ours, kernels) = ask_in_turn(&wire, address, owner.v4(), ROUNDS)?;
    conclude(ours, kernels)
}

/// The node that answers for `address`.
fn owner(lab: &Lab, wire: &Wire, address: Ipv4Addr) -> Result<Host> {
    let answer = wire.ask(&Host::client(), address, ANSWER_MAX)?;
    let (mac, _) = answer.with_context(|| format!("nobody answers for {address}"))?;
    let nodes = lab.nodes().into_iter().filter_map(|node| node_index(&node)).map(Host::node);
    nodes.into_iter().find(|node| node.mac() == mac.to_string()).ok_or_else(|| anyhow!("{mac} is no node of the lab"))
}

/// The times of `rounds` answers for each of the two, in microseconds.
fn ask_in_turn(wire: &Wire, ours: Ipv4Addr, kernels: Ipv4Addr, rounds: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let client = Host::client();
    let mut times = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        for (address, times) in [(ours, &mut times.0), (kernels, &mut times.1)] {
            let answer = wire.ask(&client, address, ANSWER_MAX)?;
            let (_, time) = answer.with_context(|| format!("no answer for {address} in round {round}"))?;
            times.push(time.as_secs_f64() * 1e6);
        }
    }
    Ok(times)
}

fn conclude(ours: Vec<f64>, kernels: Vec<f64>) -> Result<Findings> {
    ensure!(ours.len() == kernels.len(), "as many answers of one as of the other");
    let (our, kernel) = (Spread::of(&ours), Spread::of(&kernels));
    let (our, kernel) = our.zip(kernel).context("nothing was asked")?;
    let times = |value, base| ratio(value, base).context("the kernel took no time");
    let mut findings = Findings::default();
    findings.add(&budgets::ANSWERS_ADDRESS_P50, our.median);
    findings.add(&budgets::ANSWERS_KERNEL_P50, kernel.median);
    findings.add(&budgets::ANSWERS_RATIO_P50, times(our.median, kernel.median)?);
    findings.add(&budgets::ANSWERS_ADDRESS_P99, our.p99);
    findings.add(&budgets::ANSWERS_KERNEL_P99, kernel.p99);
    findings.add(&budgets::ANSWERS_RATIO_P99, times(our.p99, kernel.p99)?);
    findings.keep("answers.address", ours);
    findings.keep("answers.kernel", kernels);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratios_are_of_percentiles_not_of_pairs() {
        let findings = conclude(vec![60.0, 30.0, 40.0], vec![20.0, 50.0, 10.0]).unwrap();
        let value = |id: &str| findings.measures.iter().find(|measure| measure.id == id).unwrap().value;
        assert_eq!((value("answers.ratio.p50"), value("answers.ratio.p99")), (2.0, 1.2));
    }

    #[test]
    fn no_answers_are_no_findings() {
        assert!(conclude(Vec::new(), Vec::new()).is_err());
        assert!(conclude(vec![1.0], Vec::new()).is_err());
    }
}

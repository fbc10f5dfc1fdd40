//! How long an ARP answer for a Service's address takes, against the same node's kernel answering for its own: one request each in turn from
//! one socket, so that whatever slows the machine slows both. Asked of all hosts, and then of the owner alone.

use super::budgets::{ANSWERED_ALL, ANSWERED_ONE, Answered};
use super::report::Findings;
use super::rest;
use super::services::{self, POOL};
use super::stats::{Spread, ratio};
use super::wire::{Listener, Wire};
use crate::Lab;
use crate::topology::{CLIENT, Host, node_index};
use anyhow::{Context, Result};
use ferrolb_proto::wire::Mac;
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
    let (owner, mac) = owner(lab, &wire, address)?;
    let mut findings = Findings::default();
    for (known, name, whom) in [(&ANSWERED_ALL, "answers", Mac::BROADCAST), (&ANSWERED_ONE, "answers.unicast", mac)] {
        ask_in_turn(&wire, whom, [address, owner.v4()], WARM_UP)?;
        let times = ask_in_turn(&wire, whom, [address, owner.v4()], ROUNDS)?;
        conclude(&mut findings, known, name, times)?;
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
fn ask_in_turn(wire: &Wire, whom: Mac, addresses: [Ipv4Addr; 2], rounds: usize) -> Result<[Vec<f64>; 2]> {
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

fn conclude(findings: &mut Findings, known: &Answered, name: &str, [ours, kernels]: [Vec<f64>; 2]) -> Result<()> {
    let (our, kernel) = (Spread::of(&ours), Spread::of(&kernels));
    let (our, kernel) = our.zip(kernel).context("nothing was asked")?;
    for (place, our, kernel) in [(0, our.median, kernel.median), (1, our.p99, kernel.p99)] {
        findings.add(&known.address[place], our);
        findings.add(&known.kernel[place], kernel);
        findings.add(&known.ratio[place], ratio(our, kernel).context("the kernel took no time")?);
    }
    findings.keep(&format!("{name}.address"), ours);
    findings.keep(&format!("{name}.kernel"), kernels);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratios_are_of_percentiles_not_of_pairs() {
        let mut findings = Findings::default();
        let times = [vec![60.0, 30.0, 40.0], vec![20.0, 50.0, 10.0]];
        conclude(&mut findings, &ANSWERED_ALL, "answers", times).unwrap();
        let value = |id: &str| findings.measures.iter().find(|measure| measure.id == id).unwrap().value;
        assert_eq!((value("answers.ratio.p50"), value("answers.ratio.p99")), (2.0, 1.2));
    }

    #[test]
    fn no_answers_are_no_findings() {
        for times in [[Vec::new(), Vec::new()], [vec![1.0], Vec::new()]] {
            assert!(conclude(&mut Findings::default(), &ANSWERED_ONE, "answers", times).is_err());
        }
    }
}

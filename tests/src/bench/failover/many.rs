//! The rows of a node that owns many addresses: how long after its power cut the last of them was announced on the client's wire by another
//! node. An announcement is what turns a client that knows the dead node; whoever sends it answers already.

use crate::bench::budgets::{FAILOVER_100, FAILOVER_1000, Known};
use crate::bench::report::Findings;
use crate::bench::rest::{self, REST_MAX};
use crate::bench::services::{self, POOL};
use crate::bench::stats::Spread;
use crate::bench::wire::{self, Listener};
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::topology::Host;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Who is to own all: the first node. The others are cordoned, which makes each of them a worse owner than it.
const OWNER: u8 = 1;
/// How many addresses the first row has, and the second.
const FEW: usize = 100;
const MORE: usize = 1000;
/// How long after its claim a node may still repeat an announcement, and some more.
const REPEATS: Duration = Duration::from_secs(6);
/// How long another node may take over all of it.
const TAKEOVER_MAX: Duration = Duration::from_secs(30);

/// Runs in a lab with FerroLB and no pool.
pub(super) fn run(lab: &Lab, runs: usize) -> Result<Findings> {
    let owner = Host::node(OWNER);
    for node in lab.nodes().iter().filter(|node| **node != owner.name) {
        lab.kubectl(&["cordon", node])?;
    }
    lab.apply(POOL)?;
    rest::wait_for(lab)?;
    let (mut findings, mut addresses) = (Findings::default(), Vec::new());
    for (count, known) in [(FEW, &FAILOVER_100), (MORE, &FAILOVER_1000)] {
        let missing = count - addresses.len();
        let made = lab.api(async |client| services::create(&client, &format!("many{count}"), missing).await)?;
        addresses.extend(made.iter().map(|it| it.address));
        row(lab, &owner, &addresses, runs, known, &mut findings)?;
    }
    Ok(findings)
}

fn row(
    lab: &Lab,
    owner: &Host,
    addresses: &[Ipv4Addr],
    runs: usize,
    known: &[Known; 2],
    findings: &mut Findings,
) -> Result<()> {
    let mut times = Vec::new();
    for number in 1..=runs {
        let time = one(lab, owner, addresses);
        times.push(time.with_context(|| format!("run {number} of {runs}, {} addresses", addresses.len()))?);
    }
    let spread = Spread::of(&times).context("--runs is at least 1")?;
    findings.add(&known[0], spread.median);
    findings.add(&known[1], spread.max);
    findings.keep(&format!("failover.many.{}", addresses.len()), times);
    Ok(())
}

/// Pulls the owner's plug; milliseconds until all its addresses were announced by others.
fn one(lab: &Lab, owner: &Host, addresses: &[Ipv4Addr]) -> Result<f64> {
    rest::wait_for(lab)?;
    rest::wait_for_owner(lab, &owner.name, i64::try_from(addresses.len())?, REST_MAX)?;
    wait::during(REPEATS, || Ok(()))?;
    let (listener, dead) = (Listener::start(lab)?, wire::mac(owner)?);
    let start = wait::now();
    lab.power_off(&owner.name)?;
    let announced = || addresses.iter().map(|address| listener.first_by_another(*address, dead));
    let last: Instant = wait::until("all are announced by another", TAKEOVER_MAX, || {
        let missing = announced().filter(Option::is_none).count();
        ensure!(missing == 0, "{missing} of {} are not", addresses.len());
        Ok(announced().flatten().max())
    })?;
    ensure!(announced().flatten().all(|at| at > start), "another node announced before the power cut");
    listener.stop()?;
    lab.power_on(&owner.name)?;
    lab.wait_healthy(&speaker_name(&owner.name), &owner.name, ADMIN_PORT, "/readyz")?;
    Ok((last - start).as_secs_f64() * 1000.0)
}

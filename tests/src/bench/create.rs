//! From a Service's creation to its address, and on to its first announcement on the client's wire.

use super::budgets::{CREATED_1, CREATED_100, CREATED_1000, Created};
use super::report::Findings;
use super::rest;
use super::services::{self, Assigned, POOL};
use super::stats::Spread;
use super::wire::Listener;
use crate::{Lab, wait};
use anyhow::{Context, Result};
use std::time::Duration;

/// How many Services are created one after another.
const SINGLES: usize = 20;
/// How long all of a batch may take to be announced after the last address was given.
const ANNOUNCED_MAX: Duration = Duration::from_secs(60);

/// Runs in a lab with FerroLB and no pool.
///
/// # Errors
/// When a Service gets no address, or one is never announced.
pub(super) fn run(lab: &Lab, thousand: bool) -> Result<Findings> {
    lab.apply(POOL)?;
    rest::wait_for(lab)?;
    let listener = Listener::start(lab)?;
    let mut findings = Findings::default();
    let mut singles = Vec::new();
    for number in 0..SINGLES {
        singles.extend(batch(lab, &listener, &format!("single{number}"), 1)?);
    }
    conclude(&mut findings, &CREATED_1, "1", &singles)?;
    conclude(&mut findings, &CREATED_100, "100", &batch(lab, &listener, "hundred", 100)?)?;
    if thousand {
        conclude(&mut findings, &CREATED_1000, "1000", &batch(lab, &listener, "thousand", 1000)?)?;
    }
    listener.stop()?;
    Ok(findings)
}

/// Creates Services together; for each the milliseconds to its address and to its first announcement. No Service is deleted meanwhile, so
/// no address is seen twice and no repeat of an earlier announcement is taken for a first one.
fn batch(lab: &Lab, listener: &Listener, prefix: &str, count: usize) -> Result<Vec<(f64, f64)>> {
    let assigned = lab.api(async |client| services::create(&client, prefix, count).await)?;
    announced(listener, &assigned)
}

/// Waits until all are announced.
pub(super) fn announced(listener: &Listener, assigned: &[Assigned]) -> Result<Vec<(f64, f64)>> {
    let times = || assigned.iter().map(|it| Some((it.address_ms(), it.until_ms(listener.first(it.address)?))));
    wait::until("every address is announced", ANNOUNCED_MAX, || {
        let missing = times().filter(Option::is_none).count();
        anyhow::ensure!(missing == 0, "{missing} of {} are not", assigned.len());
        Ok(times().collect())
    })
}

fn conclude(findings: &mut Findings, known: &Created, scale: &str, times: &[(f64, f64)]) -> Result<()> {
    let (to_address, to_wire): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
    let address = Spread::of(&to_address).context("no Service was created")?;
    let wire = Spread::of(&to_wire).context("no Service was announced")?;
    findings.add(&known.address_p50, address.median);
    findings.add(&known.address_p99, address.p99);
    findings.add(&known.wire_p50, wire.median);
    findings.add(&known.wire_p99, wire.p99);
    findings.keep(&format!("create.address.{scale}"), to_address);
    findings.keep(&format!("create.wire.{scale}"), to_wire);
    Ok(())
}

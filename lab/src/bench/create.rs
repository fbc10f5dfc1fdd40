//! Times from the creation of a Service to its address, and to its first announcement on the
//! client's network segment; also the API server's own time for the creation.

use super::report::Findings;
use super::segment::AnnouncementRecorder;
use super::services::{self, Assigned, POOL};
use super::settle;
use super::stats::Spread;
use super::targets::{CREATED_1, CREATED_100, CREATED_1000, CreateMeasures, MeasureSpec};
use crate::{Lab, wait};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Number of Services that are created one after another.
const SINGLES: usize = 20;
/// Maximum time from the last assignment of a batch to its last announcement.
const ANNOUNCED_MAX: Duration = Duration::from_secs(60);

/// Milliseconds of one Service: the API server's reply to its creation, and from there to its
/// address and to its first announcement.
type Times = [f64; 3];

/// Runs in a lab with FerroLB and no pool.
///
/// # Errors
/// If a Service gets no address, or an address is never announced.
pub(super) fn run(lab: &Lab, thousand: bool) -> Result<Findings> {
    lab.apply(POOL)?;
    settle::wait_for(lab)?;
    let listener = AnnouncementRecorder::start(lab)?;
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

/// Creates Services together and waits until they are announced.
///
/// Nothing deletes a Service meanwhile. So no address is assigned twice, and a repeated earlier
/// announcement cannot count as a first one.
fn batch(
    lab: &Lab,
    listener: &AnnouncementRecorder,
    prefix: &str,
    count: usize,
) -> Result<Vec<Times>> {
    let assigned =
        lab.api(async |client| services::create(&client, prefix, count, &services::V4).await)?;
    announced(listener, &assigned)
}

/// Waits until all addresses are announced and returns the times of each Service.
pub(super) fn announced(
    listener: &AnnouncementRecorder,
    assigned: &[Assigned],
) -> Result<Vec<Times>> {
    let last = |it: &Assigned| {
        let firsts: Option<Vec<Instant>> =
            it.addresses.iter().map(|address| listener.first(*address)).collect();
        firsts?.into_iter().max()
    };
    let times =
        || assigned.iter().map(|it| Some([it.api_ms(), it.address_ms(), it.until_ms(last(it)?)]));
    wait::until("every address is announced", ANNOUNCED_MAX, || {
        let missing = times().filter(Option::is_none).count();
        anyhow::ensure!(missing == 0, "{missing} of {} are not announced", assigned.len());
        Ok(times().collect())
    })
}

fn conclude(
    findings: &mut Findings,
    known: &CreateMeasures,
    scale: &str,
    times: &[Times],
) -> Result<()> {
    let parts = [("api", &known.api), ("address", &known.address), ("wire", &known.wire)];
    for (place, (name, known)) in parts.into_iter().enumerate() {
        let samples: Vec<f64> = times.iter().map(|times| times[place]).collect();
        spread(findings, known, &samples)?;
        findings.keep(&format!("create.{name}.{scale}"), samples);
    }
    Ok(())
}

/// Adds the median and the 99th percentile of samples.
pub(super) fn spread(
    findings: &mut Findings,
    known: &[MeasureSpec; 2],
    samples: &[f64],
) -> Result<()> {
    let spread = Spread::of(samples).context("no Service was created")?;
    findings.add(&known[0], spread.median);
    findings.add(&known[1], spread.p99);
    Ok(())
}

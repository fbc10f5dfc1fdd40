//! Times from the creation of a Service to its address, and to its first announcement on the
//! client's network segment; also the API server's own time for the creation.
//!
//! # Method
//!
//! - One batch creates 20 Services one at a time. Another batch creates 100 with eight creators at
//!   once, and with `--thousand` a third one creates 1,000.
//! - The API server's own time counts from the request on an open connection to the reply. It shows
//!   how busy the API server is. The same API server must also accept the write of the address, and
//!   deliver it to the watch.
//! - The other two clocks start with that reply, so they do not include the creation. The first one
//!   ends with the watch event that has `status.loadBalancer.ingress`. The second one ends with the
//!   first ARP announcement that a packet socket of the client receives.
//! - No Service is deleted, so a repeated announcement of an earlier Service cannot count as a
//!   first one.
//!
//! # Limits
//!
//! The Services have no selector, and each EndpointSlice exists before its Service, because FerroLB
//! announces no address without endpoints. kube-controller-manager creates at most 20 slices per
//! second after the first 30 or so (its API rate limit). For 100 Services with selectors, this
//! takes 3.3 s in the lab, with any announcer. The table therefore has no announcement time of
//! MetalLB: the measured 2.3 s (100 Services) and 35 s (1,000) look like that limit.
//!
//! The times depend mostly on the load of the machine. With loads of 3 to 8, the 99th percentile of
//! 100 Services was 57 to 125 ms, compared with 20 ms on a quiet machine.

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
const SINGLE_SERVICES: usize = 20;
/// Maximum time from the last assignment of a batch to its last announcement.
const ANNOUNCED_MAX: Duration = Duration::from_secs(60);

/// Times of one Service in milliseconds: from the request that creates it to the API server's
/// reply, and from this reply to the address and to the first announcement.
type CreateTimes = [f64; 3];

/// Runs this benchmark in a lab with FerroLB and no pool.
///
/// # Errors
/// If a Service gets no address, or an address is never announced.
pub(super) fn run(lab: &Lab, thousand: bool) -> Result<Findings> {
    lab.apply(POOL)?;
    settle::wait_settled(lab)?;
    let recorder = AnnouncementRecorder::start(lab)?;
    let mut findings = Findings::default();
    let mut singles = Vec::new();
    for number in 0..SINGLE_SERVICES {
        singles.extend(create_batch(lab, &recorder, &format!("single{number}"), 1)?);
    }
    conclude(&mut findings, &CREATED_1, "1", &singles)?;
    conclude(&mut findings, &CREATED_100, "100", &create_batch(lab, &recorder, "hundred", 100)?)?;
    if thousand {
        conclude(
            &mut findings,
            &CREATED_1000,
            "1000",
            &create_batch(lab, &recorder, "thousand", 1000)?,
        )?;
    }
    recorder.stop()?;
    Ok(findings)
}

/// Creates Services together and waits until they are announced.
///
/// No Service is deleted in the same lab. So no address is assigned twice, and an announcement for
/// an earlier Service cannot count as the first one for a later Service.
fn create_batch(
    lab: &Lab,
    recorder: &AnnouncementRecorder,
    prefix: &str,
    count: usize,
) -> Result<Vec<CreateTimes>> {
    let assigned =
        lab.api(async |client| services::create(&client, prefix, count, &services::V4).await)?;
    wait_announced(recorder, &assigned)
}

/// Waits until all addresses are announced and returns the times of each Service.
pub(super) fn wait_announced(
    recorder: &AnnouncementRecorder,
    assigned: &[Assigned],
) -> Result<Vec<CreateTimes>> {
    let last_announcement = |service: &Assigned| {
        let firsts: Option<Vec<Instant>> =
            service.addresses.iter().map(|address| recorder.first_announcement(*address)).collect();
        firsts?.into_iter().max()
    };
    let times = || {
        assigned.iter().map(|service| {
            Some([
                service.api_ms(),
                service.address_ms(),
                service.until_ms(last_announcement(service)?),
            ])
        })
    };
    wait::until("every address is announced", ANNOUNCED_MAX, || {
        let missing = times().filter(Option::is_none).count();
        anyhow::ensure!(missing == 0, "{missing} of {} Services are not announced", assigned.len());
        Ok(times().collect())
    })
}

fn conclude(
    findings: &mut Findings,
    measures: &CreateMeasures,
    scale: &str,
    times: &[CreateTimes],
) -> Result<()> {
    let parts =
        [("api", &measures.api), ("address", &measures.address), ("wire", &measures.announcement)];
    for (index, (name, measures)) in parts.into_iter().enumerate() {
        let samples: Vec<f64> = times.iter().map(|times| times[index]).collect();
        add_spread(findings, measures, &samples)?;
        findings.keep_samples(&format!("create.{name}.{scale}"), samples);
    }
    Ok(())
}

/// Adds the median and the 99th percentile of `samples` to the findings.
pub(super) fn add_spread(
    findings: &mut Findings,
    measures: &[MeasureSpec; 2],
    samples: &[f64],
) -> Result<()> {
    let spread = Spread::of(samples).context("no Service was created")?;
    findings.add(&measures[0], spread.median);
    findings.add(&measures[1], spread.p99);
    Ok(())
}

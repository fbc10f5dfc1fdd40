//! Memory of the components, as counted by the kernel, with 1 Service and with 100, and with 1,000
//! if `--thousand` is set.
//!
//! # Method
//!
//! - Every Service has an EndpointSlice and is announced.
//! - The values are those of `/proc/PID/smaps_rollup`, for the controller and for the largest of
//!   the three speakers. The maximum of the three seconds after the last announcement counts.
//! - The target applies to the resident set (RSS) of the programs of the images: use `--release`.
//!   The lab's build takes more.
//! - PSS divides pages that the three speakers share among them. `Anonymous` is the memory that the
//!   process requested; the rest is its code. MB are millions of bytes.
//!
//! Directly after its start, a speaker that owns all addresses also probes them. Each address then
//! has a pending claim of 72 bytes, and a timer.

use super::create;
use super::machine::kilobytes;
use super::report::Findings;
use super::segment::AnnouncementRecorder;
use super::services::{self, POOL};
use super::settle;
use super::targets::{self, MemoryMeasures};
use crate::cluster::ferrolb::{CONTROLLER, speaker_name};
use crate::{Lab, wait};
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::time::Duration;

/// Time for which the components are observed after the lab has settled. The maximum in this time
/// is the measured value.
const OBSERVATION_TIME: Duration = Duration::from_secs(3);

/// Memory of a process, in millions of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ProcessMemory {
    rss: f64,
    pss: f64,
    anonymous: f64,
}

impl ProcessMemory {
    fn max(self, other: Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            pss: self.pss.max(other.pss),
            anonymous: self.anonymous.max(other.anonymous),
        }
    }
}

/// Runs this benchmark in a lab with FerroLB and no pool.
///
/// # Errors
/// If a component ends, or Services get no addresses.
pub(super) fn run(lab: &Lab, thousand: bool) -> Result<Findings> {
    lab.apply(POOL)?;
    settle::wait_settled(lab)?;
    let recorder = AnnouncementRecorder::start(lab)?;
    let mut findings = Findings::default();
    let mut stages = vec![
        (1, &targets::CONTROLLER_1, &targets::SPEAKER_1),
        (99, &targets::CONTROLLER_100, &targets::SPEAKER_100),
    ];
    if thousand {
        stages.push((900, &targets::CONTROLLER_1000, &targets::SPEAKER_1000));
    }
    let speakers: Vec<String> = lab.nodes().iter().map(|node| speaker_name(node)).collect();
    for (added, controller, speaker) in stages {
        let prefix = format!("memory{added}");
        let assigned =
            lab.api(async |client| services::create(&client, &prefix, added, &services::V4).await)?;
        create::wait_announced(&recorder, &assigned)?;
        measure(lab, &mut findings, controller, &[CONTROLLER.to_owned()])?;
        measure(lab, &mut findings, speaker, &speakers)?;
    }
    recorder.stop()?;
    Ok(findings)
}

/// Measures the memory of the processes of one component. The largest value of each kind of memory
/// is the result.
pub(super) fn measure(
    lab: &Lab,
    findings: &mut Findings,
    measures: &MemoryMeasures,
    names: &[String],
) -> Result<()> {
    let maxima = maxima(lab, names)?;
    let largest = maxima.iter().copied().fold(ProcessMemory::default(), ProcessMemory::max);
    findings.add(&measures.rss, largest.rss);
    findings.add(&measures.pss, largest.pss);
    findings.add(&measures.anonymous, largest.anonymous);
    findings.keep_samples(measures.rss.id, maxima.iter().map(|memory| memory.rss).collect());
    Ok(())
}

/// Returns the resident memory of each of these processes, in millions of bytes.
pub(super) fn resident(lab: &Lab, names: &[String]) -> Result<Vec<f64>> {
    Ok(maxima(lab, names)?.into_iter().map(|memory| memory.rss).collect())
}

/// Observes these processes, and returns the maxima of each.
fn maxima(lab: &Lab, names: &[String]) -> Result<Vec<ProcessMemory>> {
    let mut maxima = vec![ProcessMemory::default(); names.len()];
    wait::during(OBSERVATION_TIME, || {
        for (name, maximum) in names.iter().zip(&mut maxima) {
            *maximum = maximum.max(memory(lab.pid(name)?)?);
        }
        Ok(())
    })?;
    Ok(maxima)
}

fn memory(pid: i32) -> Result<ProcessMemory> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    parse(&text).ok_or_else(|| anyhow!("{file} does not have the format of proc(5)"))
}

/// Parses `/proc/PID/smaps_rollup` (proc(5)).
fn parse(rollup: &str) -> Option<ProcessMemory> {
    let megabytes = |name: &str| Some(kilobytes(rollup, name)? as f64 / 1000.0);
    Some(ProcessMemory {
        rss: megabytes("Rss")?,
        pss: megabytes("Pss")?,
        anonymous: megabytes("Anonymous")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_rollup_is_parsed_in_millions_of_bytes() {
        let rollup = "5571-7ffe ---p 00000000 00:00 0  [rollup]\nRss:   10000 kB\nPss:   5000 kB\nPss_Anon:  1 kB\nAnonymous:   2500 kB\n";
        assert_eq!(parse(rollup), Some(ProcessMemory { rss: 10.24, pss: 5.12, anonymous: 2.56 }));
        assert_eq!(parse("Rss:   10000 kB\n"), None);
    }

    #[test]
    fn each_memory_value_has_its_own_maximum() {
        let (a, b) = (
            ProcessMemory { rss: 3.0, pss: 1.0, anonymous: 2.0 },
            ProcessMemory { rss: 2.0, pss: 4.0, anonymous: 1.0 },
        );
        assert_eq!(a.max(b), ProcessMemory { rss: 3.0, pss: 4.0, anonymous: 2.0 });
    }
}

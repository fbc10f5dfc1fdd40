//! What the programs hold in memory, from the kernel's own books, with one Service and with a hundred.

use super::budgets::{self, Held};
use super::create;
use super::machine::kilobytes;
use super::report::Findings;
use super::rest;
use super::services::{self, POOL};
use super::wire::Listener;
use crate::cluster::ferrolb::{CONTROLLER, speaker_name};
use crate::{Lab, wait};
use anyhow::{Context, Result, anyhow};
use std::fs;
use std::time::Duration;

/// How long the programs are looked at after their work is done; the most that is seen counts.
const LOOK: Duration = Duration::from_secs(3);

/// A process's memory, in millions of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Memory {
    rss: f64,
    pss: f64,
    anonymous: f64,
}

impl Memory {
    fn most(self, other: Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            pss: self.pss.max(other.pss),
            anonymous: self.anonymous.max(other.anonymous),
        }
    }
}

/// Runs in a lab with FerroLB and no pool.
///
/// # Errors
/// When a program ends, or Services get no addresses.
pub(super) fn run(lab: &Lab, thousand: bool) -> Result<Findings> {
    lab.apply(POOL)?;
    rest::wait_for(lab)?;
    let listener = Listener::start(lab)?;
    let mut findings = Findings::default();
    let mut stages =
        vec![(1, &budgets::CONTROLLER_1, &budgets::SPEAKER_1), (99, &budgets::CONTROLLER_100, &budgets::SPEAKER_100)];
    if thousand {
        stages.push((900, &budgets::CONTROLLER_1000, &budgets::SPEAKER_1000));
    }
    let speakers: Vec<String> = lab.nodes().iter().map(|node| speaker_name(node)).collect();
    for (more, controller, speaker) in stages {
        let prefix = format!("memory{more}");
        let assigned = lab.api(async |client| services::create(&client, &prefix, more, &services::V4).await)?;
        create::announced(&listener, &assigned)?;
        hold(lab, &mut findings, controller, &[CONTROLLER.to_owned()])?;
        hold(lab, &mut findings, speaker, &speakers)?;
    }
    listener.stop()?;
    Ok(findings)
}

/// Looks at processes of one program; the fattest counts.
pub(super) fn hold(lab: &Lab, findings: &mut Findings, known: &Held, names: &[String]) -> Result<()> {
    let mut most = vec![Memory::default(); names.len()];
    wait::during(LOOK, || {
        for (name, most) in names.iter().zip(&mut most) {
            *most = most.most(memory(lab.pid(name)?)?);
        }
        Ok(())
    })?;
    let fattest = most.iter().copied().fold(Memory::default(), Memory::most);
    findings.add(&known.rss, fattest.rss);
    findings.add(&known.pss, fattest.pss);
    findings.add(&known.anonymous, fattest.anonymous);
    findings.keep(known.rss.id, most.iter().map(|memory| memory.rss).collect());
    Ok(())
}

fn memory(pid: i32) -> Result<Memory> {
    let file = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    parse(&text).ok_or_else(|| anyhow!("{file} is not what proc(5) says"))
}

/// Reads `/proc/PID/smaps_rollup` (proc(5)).
fn parse(rollup: &str) -> Option<Memory> {
    let megabytes = |name: &str| Some(kilobytes(rollup, name)? as f64 / 1000.0);
    Some(Memory { rss: megabytes("Rss")?, pss: megabytes("Pss")?, anonymous: megabytes("Anonymous")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_books_are_read_in_millions_of_bytes() {
        let rollup = "5571-7ffe ---p 00000000 00:00 0  [rollup]\nRss:   10000 kB\nPss:   5000 kB\nPss_Anon:  1 kB\nAnonymous:   2500 kB\n";
        assert_eq!(parse(rollup), Some(Memory { rss: 10.24, pss: 5.12, anonymous: 2.56 }));
        assert_eq!(parse("Rss:   10000 kB\n"), None);
    }

    #[test]
    fn the_most_that_was_seen_counts_for_each_book() {
        let (a, b) = (Memory { rss: 3.0, pss: 1.0, anonymous: 2.0 }, Memory { rss: 2.0, pss: 4.0, anonymous: 1.0 });
        assert_eq!(a.most(b), Memory { rss: 3.0, pss: 4.0, anonymous: 2.0 });
    }
}

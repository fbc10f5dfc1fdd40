//! The benchmarks: what FerroLB promises, measured in a lab of its own each (docs/benchmarks.md). A run prints the truth; a check fails only
//! beyond three times a budget.

mod answers;
pub mod budgets;
mod create;
mod failover;
pub mod machine;
mod memory;
pub mod report;
mod rest;
mod services;
pub mod stats;
pub mod wire;

use crate::setup::Tools;
use crate::{Lab, Options};
use anyhow::{Context, Result};
use report::Findings;

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bench {
    /// From a Service's creation to its address and its first announcement.
    Create,
    /// ARP answers against the kernel's own.
    Answers,
    /// What the programs hold in memory.
    Memory,
    /// The longest gap when the owner of an address loses power.
    Failover,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// How often the owner loses power.
    pub runs: usize,
    /// Also with 1,000 Services.
    pub thousand: bool,
}

/// Runs one benchmark in a lab that it raises for itself and takes down.
///
/// # Errors
/// When the lab does not come up, or what is measured does not happen at all.
pub fn run(bench: Bench, tools: &Tools, options: &Options, scale: Scale) -> Result<Findings> {
    let lab = Lab::up(tools, options)?;
    lab.start_ferrolb()?;
    let findings = match bench {
        Bench::Create => create::run(&lab, scale.thousand),
        Bench::Answers => answers::run(&lab),
        Bench::Memory => memory::run(&lab, scale.thousand),
        Bench::Failover => failover::run(&lab, scale.runs),
    };
    let findings = findings.with_context(|| format!("the benchmark {bench:?} could not be done"))?;
    lab.down()?;
    Ok(findings)
}

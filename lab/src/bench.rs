//! Benchmarks. Each one measures a promise of FerroLB in a lab of its own. The results are in
//! docs/internals/benchmarks.md, and the method of each benchmark is in the documentation of its
//! module.
//!
//! # Setup
//!
//! A lab has three nodes, and kube-proxy in nftables mode. The benchmarks without client
//! connections have no kube-proxies, which would only use processor time
//! ([`Bench::has_kube_proxies`]). Each benchmark takes its lab down afterwards, so none inherits
//! the state of another one. Nothing else on the machine should be busy.
//!
//! Published times are of the lab's build if the page does not state another one. The memory
//! targets refer to the release build (`--release`), whose processes are smaller by a quarter.
//!
//! # Reading a table
//!
//! - The column `target` has the value to reach on a quiet machine. The column `verdict` is
//!   `within` or `OVER`, and empty for a measure that only explains another one.
//! - Values of other products were measured earlier on the same lab, and never in the same run.
//!   Their last digit is not comparable.
//! - Ratios are more reliable than absolute times, and both only within one run: with two
//!   processors, all processes wait for each other. The head of the table names the machine, the
//!   build and the load before the run. With a load near the number of processors, every time in
//!   the table is worthless.
//! - A percentile is the nearest rank. Of 20 samples, the 99th percentile is the largest.
//!
//! # Comparison
//!
//! A run prints every value as measured. `--json FILE` writes the machine, the commit, the profile,
//! every measure and the raw samples, to compare with a later run. The `id` of a measure, such as
//! `create.address.p99.100`, never changes its meaning.
//!
//! `--check` fails only if a value is above three times its target ([`report::CHECK_FACTOR`]): a
//! shared machine may be slow, but a defect is slower. Three times zero is zero.

mod bgp;
pub mod bgp_failover;
pub mod busy;
mod cpu;
mod create;
mod explain;
pub mod failover;
mod health;
mod large;
pub mod machine;
mod memory;
mod plan_times;
pub mod power_off;
mod replies;
pub mod report;
mod scale;
pub mod segment;
pub mod services;
pub mod settle;
mod single_owner;
pub mod stats;
pub mod targets;

use crate::setup::Tools;
use crate::{Lab, Options};
use anyhow::{Context, Result};
use report::Findings;

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bench {
    /// Times from the creation of a Service to its address and to its first announcement.
    Create,
    /// ARP and Neighbor Discovery replies compared with the kernel's own, for one and for ten
    /// thousand addresses.
    Answers,
    /// Memory of the components.
    Memory,
    /// Ten thousand Services: addresses, memory, processor time, and a restart.
    Scale,
    /// A thousand Services of 255 KiB each, and three thousand Nodes: peak memory of the
    /// components. Ten thousand Services, fifty thousand endpoints and a thousand Nodes: memory,
    /// and the cost of changing endpoints.
    Large,
    /// Endpoint health: a thousand Services with policy Local and changing or checked endpoints;
    /// moves of an address away from its owner.
    Health,
    /// BGP: time from endpoint removed to route withdrawn; ten thousand routes, and a restart.
    /// Needs FRR and GoBGP.
    Bgp,
    /// BGP failover: outage of a client behind a router when the node fails or drains, or its
    /// components restart. Needs FRR and GoBGP.
    BgpFailover,
    /// L2 failover: outage of a client when the owner of an address fails, stops or returns; one
    /// row per kind of event.
    Failover,
    /// Power failure: outage of a client when the machine that owns an address loses power, in a
    /// kubeadm cluster.
    PowerOff,
    /// Busy nodes: moves, fences and false node failures beside pods that use all processors, in a
    /// kubeadm cluster.
    Busy,
}

impl Bench {
    /// Returns whether the lab of the benchmark runs kube-proxies.
    pub fn has_kube_proxies(self) -> bool {
        match self {
            Self::Create
            | Self::Memory
            | Self::Health
            | Self::BgpFailover
            | Self::Failover
            | Self::PowerOff
            | Self::Busy => true,
            Self::Answers | Self::Scale | Self::Large | Self::Bgp => false,
        }
    }

    /// Returns whether the lab of the benchmark has routers.
    pub fn has_routers(self) -> bool {
        matches!(self, Self::Bgp | Self::BgpFailover)
    }

    /// Returns whether the benchmark runs on a kubeadm cluster.
    pub fn has_kubelets(self) -> bool {
        matches!(self, Self::PowerOff | Self::Busy)
    }
}

/// Amount of work of a benchmark run.
#[derive(Clone, Debug)]
pub struct BenchExtent {
    /// Runs per row, for failover and for BGP failover.
    pub runs: usize,
    /// Rows of the failover benchmark.
    pub rows: Vec<failover::FailoverRow>,
    /// True if the benchmark `create` also measures with 1,000 Services.
    pub thousand: bool,
}

/// Runs one benchmark. A benchmark that needs a lab starts and stops its own.
///
/// # Errors
/// If the lab does not start, or the measured event does not happen.
pub fn run(
    bench: Bench,
    tools: &Tools,
    options: &Options,
    extent: &BenchExtent,
) -> Result<Findings> {
    let proxy_mode = options.proxy_mode.clone().filter(|_| bench.has_kube_proxies());
    let options = &Options { proxy_mode, ..options.clone() };
    let findings = match bench {
        Bench::Create => with_ferrolb(tools, options, |lab| create::run(lab, extent.thousand)),
        Bench::Answers => in_lab(tools, options, replies::run),
        Bench::Memory => with_ferrolb(tools, options, |lab| memory::run(lab, extent.thousand)),
        Bench::Scale => in_lab(tools, options, scale::run),
        Bench::Large => large::run(tools, options),
        Bench::Health => health::run(tools, options),
        Bench::Bgp => bgp::run(tools, options),
        Bench::BgpFailover => bgp_failover::run(tools, options, extent.runs),
        Bench::Failover => failover::run(tools, options, extent.runs, &extent.rows),
        Bench::PowerOff => power_off::run(tools, options, extent.runs),
        Bench::Busy => busy::run(tools, options),
    };
    findings.with_context(|| format!("the benchmark {bench:?} failed"))
}

/// Runs `work` in a lab with FerroLB.
fn with_ferrolb(
    tools: &Tools,
    options: &Options,
    work: impl FnOnce(&Lab) -> Result<Findings>,
) -> Result<Findings> {
    in_lab(tools, options, |lab| {
        lab.start_ferrolb()?;
        work(lab)
    })
}

fn in_lab<T>(tools: &Tools, options: &Options, work: impl FnOnce(&Lab) -> Result<T>) -> Result<T> {
    let lab = Lab::up(tools, options)?;
    let findings = work(&lab)?;
    lab.down()?;
    Ok(findings)
}

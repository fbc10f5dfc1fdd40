//! The benchmarks: what FerroLB promises, measured in a lab of its own each (docs/benchmarks.md). A run prints the truth; a check fails only
//! beyond three times a budget.

mod allocate;
mod answers;
mod bgp;
pub mod bgp_failover;
pub mod budgets;
mod cpu;
mod create;
pub mod failover;
mod health;
mod holder;
mod large;
pub mod machine;
mod memory;
mod plans;
pub mod power_off;
pub mod report;
mod rest;
mod scale;
pub mod services;
pub mod stats;
pub mod wire;

use crate::setup::Tools;
use crate::{Lab, Options};
use anyhow::{Context, Result};
use report::Findings;

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bench {
    /// Whether an address of a large pool costs more than one of a small pool; needs no lab.
    Allocate,
    /// From a Service's creation to its address and its first announcement.
    Create,
    /// Answers by ARP and Neighbor Discovery against the kernel's own, with one address and with ten thousand.
    Answers,
    /// What the programs hold in memory.
    Memory,
    /// Ten thousand Services: addresses, memory, processor time, a restart among them.
    Scale,
    /// A thousand Services of 255 KiB each, and three thousand Nodes: the programs' peak memory.
    Large,
    /// A thousand Services with policy Local whose endpoints change all the time, or are asked; how an address leaves its owner; a dead node's
    /// endpoints.
    Health,
    /// How soon a router knows that an endpoint is gone; ten thousand routes, and a restart among them. Needs FRR and GoBGP.
    Bgp,
    /// What a client behind a router sees when the node that it is sent to by BGP dies, drains, or has its programs started anew. Needs FRR and GoBGP.
    BgpFailover,
    /// What a client sees when the owner of an address dies, stops, or is back; a row for each thing that can happen.
    Failover,
    /// What a client sees when the machine that owns an address loses its power, in a cluster made by kubeadm.
    PowerOff,
}

impl Bench {
    /// Whether it is measured beside kube-proxies.
    pub fn has_kube_proxies(self) -> bool {
        match self {
            Self::Create | Self::Memory | Self::Health | Self::BgpFailover | Self::Failover | Self::PowerOff => true,
            Self::Allocate | Self::Answers | Self::Scale | Self::Large | Self::Bgp => false,
        }
    }

    /// Whether it is measured with routers.
    pub fn has_routers(self) -> bool {
        matches!(self, Self::Bgp | Self::BgpFailover)
    }

    /// Whether it is measured on a cluster made by kubeadm.
    pub fn has_kubelets(self) -> bool {
        self == Self::PowerOff
    }
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Extent {
    /// How often each thing happens in each row of failover, and of BGP's.
    pub runs: usize,
    /// The rows of failover.
    pub rows: Vec<failover::Row>,
    /// Also with 1,000 Services.
    pub thousand: bool,
}

/// Runs one benchmark, in a lab that it raises for itself and takes down if it needs one.
///
/// # Errors
/// When the lab does not come up, or what is measured does not happen at all.
pub fn run(bench: Bench, tools: &Tools, options: &Options, extent: &Extent) -> Result<Findings> {
    let proxy_mode = options.proxy_mode.clone().filter(|_| bench.has_kube_proxies());
    let options = &Options { proxy_mode, ..options.clone() };
    let findings = match bench {
        Bench::Allocate => allocate::run(),
        Bench::Create => beside_ferrolb(tools, options, |lab| create::run(lab, extent.thousand)),
        Bench::Answers => in_lab(tools, options, answers::run),
        Bench::Memory => beside_ferrolb(tools, options, |lab| memory::run(lab, extent.thousand)),
        Bench::Scale => in_lab(tools, options, scale::run),
        Bench::Large => beside_ferrolb(tools, options, large::run),
        Bench::Health => health::run(tools, options),
        Bench::Bgp => bgp::run(tools, options),
        Bench::BgpFailover => bgp_failover::run(tools, options, extent.runs),
        Bench::Failover => failover::run(tools, options, extent.runs, &extent.rows),
        Bench::PowerOff => power_off::run(tools, options),
    };
    findings.with_context(|| format!("the benchmark {bench:?} could not be done"))
}

/// Does `work` in a lab with FerroLB.
fn beside_ferrolb(tools: &Tools, options: &Options, work: impl FnOnce(&Lab) -> Result<Findings>) -> Result<Findings> {
    in_lab(tools, options, |lab| {
        lab.start_ferrolb()?;
        work(lab)
    })
}

fn in_lab(tools: &Tools, options: &Options, work: impl FnOnce(&Lab) -> Result<Findings>) -> Result<Findings> {
    let lab = Lab::up(tools, options)?;
    let findings = work(&lab)?;
    lab.down()?;
    Ok(findings)
}

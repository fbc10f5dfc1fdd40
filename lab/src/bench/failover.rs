//! L2 failover: outage of a client when an event affects the owner of its Service's addresses, IPv4
//! and IPv6. One row per kind of event, with several runs each. Published results have ten.
//!
//! # Method
//!
//! - A client opens a new connection to each address every 10 ms, and never waits for an earlier
//!   one. A connection without a page within 0.9 s is lost. The results are the longest time
//!   between two successful replies, and the number of lost connections: the median and the worst
//!   of all runs.
//! - A pod runs on every node. Before each run the owner's own pod is removed from the Service, so
//!   that the measured outage is that of the address and not of an endpoint. Otherwise, kube-proxy
//!   of the other nodes would send a third of the connections to a failed pod.
//! - A run starts after one second in which the pods of the other nodes have served every
//!   connection, when every speaker receives the others, and when kube-proxy on every node forwards
//!   to those pods only. A move to a node whose kube-proxy is not ready loses connections, with any
//!   announcer.
//! - Each run deletes the Services and creates them again. An address that has moved recently stays
//!   with its owner for longer each time, and ten runs would take hours.
//! - The speakers have a preempt delay of 2 s. It is in no value; with the default, each run would
//!   take half a minute longer.
//! - A second client has one connection of each family open, and sends and receives a byte every 20
//!   ms. The table counts the outcomes: survived, reset, or stalled until the end. A move usually
//!   ends such a connection, because only the old node has its address translation.
//!
//! | `--row` | event | duration of a run |
//! |---|---|---|
//! | `dies` | the owner loses power, and returns | 17 s |
//! | `link` | the owner's network cable is disconnected | 10 s |
//! | `killed` | the owner's speaker is killed; the node still forwards | 10 s |
//! | `stopped` | the owner's speaker is stopped by SIGTERM | 10 s |
//! | `rolling` | all speakers are restarted, one after another | 11 s |
//! | `names` | the owner of a name server's addresses, TCP and UDP, loses power | 11 s |
//! | `hello20` | as `dies`, with `--hello-interval 20ms` | 11 s |
//! | `keepalived` | the comparison, on the same nodes in the same run | 12 s |
//! | `many` | the owner of 100 and of 1,000 addresses loses power | 36 s |
//! | `ten-thousand` | the speakers start with 10,000 IPv6 addresses | 60 s, and 2 min once |
//!
//! To lose power means: the switch port of the node goes down, all its processes are killed, and
//! Kubernetes receives no notice. The packet filter of the node is cleared. After power-on, the
//! node takes its address again after about 3 s, if its kube-proxy reports by then that its rules
//! are complete.

mod forwarding;
mod keepalived;
mod many;
mod name_server;
mod node_failure;
mod planned;
mod runs;
mod setup;
mod ten_thousand;

use super::report::Findings;
use super::targets;
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER, speaker_name};
use crate::setup::Tools;
use crate::topology::CONTROL_PLANE;
use crate::{Lab, Options, Signal};
use anyhow::{Context, Result};
use setup::FailoverSetup;
use std::time::Duration;

/// Flags that set the preempt delay. No measured value includes the delay, and the default would
/// lengthen every run.
const FAILBACK_FLAGS: [&str; 2] = ["--failback-delay", "2s"];
/// Flags that set the shortest hello interval that a network without loss allows.
const HELLO_20_FLAGS: [&str; 2] = ["--hello-interval", "20ms"];
/// Usual time to create ten thousand Services.
const TEN_THOUSAND_USUAL_TIME: Duration = Duration::from_secs(120);
/// Usual time to start and stop a lab, on two cores.
const LAB_USUAL_TIME: Duration = Duration::from_secs(20);

/// An event at the owner of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FailoverRow {
    /// The owner loses power, and returns.
    Dies,
    /// The owner's interface goes down.
    Link,
    /// The owner's speaker is killed.
    Killed,
    /// The owner's speaker is stopped.
    Stopped,
    /// All speakers restart, one after another.
    Rolling,
    /// The owner of an address with TCP and UDP port 53 loses power.
    Names,
    /// The owner loses power, with hellos every 20 ms.
    Hello20,
    /// Keepalived on the same nodes, adverts every 100 ms: the owner of its address loses power.
    Keepalived,
    /// The owner of 100 and of 1,000 addresses loses power, and the owner of 1,000 IPv6 addresses.
    Many,
    /// Speakers start with 10,000 IPv6 addresses, and the owner of all of them loses power.
    TenThousand,
}

impl FailoverRow {
    /// Returns the usual duration of one run of the row, as measured on two cores.
    const fn usual_run_time(self) -> Duration {
        Duration::from_secs(match self {
            Self::Dies => 17,
            Self::Link | Self::Killed | Self::Stopped => 10,
            Self::Rolling | Self::Names | Self::Hello20 => 11,
            Self::Keepalived => 12,
            Self::Many => 36,
            Self::TenThousand => 60,
        })
    }
}

/// Returns the usual duration of the failover benchmark with the rows `rows` and `runs` runs of
/// each row.
pub fn usual_duration(runs: usize, rows: &[FailoverRow]) -> Duration {
    let all: Duration = rows.iter().map(|row| row.usual_run_time()).sum();
    let once = if rows.contains(&FailoverRow::TenThousand) {
        TEN_THOUSAND_USUAL_TIME
    } else {
        Duration::ZERO
    };
    3 * LAB_USUAL_TIME + once + all * u32::try_from(runs).unwrap_or(u32::MAX)
}

/// Starts one lab for the rows with one address, and a lab without kube-proxies for each row with
/// many addresses: no client connects there, and kube-proxies would only use processor time.
///
/// # Errors
/// If a cluster does not settle, or an address gets no owner.
pub(super) fn run(
    tools: &Tools,
    options: &Options,
    runs: usize,
    rows: &[FailoverRow],
) -> Result<Findings> {
    let mut findings = Findings::default();
    let (many_addresses, one_address): (Vec<FailoverRow>, _) =
        rows.iter().partition(|row| matches!(row, FailoverRow::Many | FailoverRow::TenThousand));
    if !one_address.is_empty() {
        findings.extend(super::in_lab(tools, options, |lab| {
            run_rows_with_one_address(lab, runs, &one_address)
        })?);
    }
    let options = Options { proxy_mode: None, ..options.clone() };
    for row in many_addresses {
        let found = super::in_lab(tools, &options, |lab| {
            if row == FailoverRow::TenThousand {
                return ten_thousand::run(lab, runs, || start_speakers(lab, &FAILBACK_FLAGS));
            }
            start(lab)?;
            many::run(lab, runs)
        });
        findings.extend(found.with_context(|| format!("the row {row:?} failed"))?);
    }
    Ok(findings)
}

fn run_rows_with_one_address(lab: &Lab, runs: usize, rows: &[FailoverRow]) -> Result<Findings> {
    start(lab)?;
    let (setup, mut findings) = (FailoverSetup::start(lab)?, Findings::default());
    for row in rows {
        let found = &mut findings;
        let done = match row {
            FailoverRow::Dies => node_failure::power_failure(
                &setup,
                runs,
                &targets::FAILOVER_NODE_FAILURE,
                Some(&targets::FAILOVER_RETURN),
                found,
            ),
            FailoverRow::Link => node_failure::interface_down(&setup, runs, found),
            FailoverRow::Killed => node_failure::killed(&setup, runs, found),
            FailoverRow::Stopped => planned::stopped(&setup, runs, found),
            FailoverRow::Rolling => planned::rolling(&setup, runs, found),
            FailoverRow::Names => name_server::run(lab, runs, found),
            FailoverRow::Hello20 => {
                with_speakers(lab, &[FAILBACK_FLAGS, HELLO_20_FLAGS].concat(), || {
                    node_failure::power_failure(
                        &setup,
                        runs,
                        &targets::FAILOVER_HELLO_20,
                        None,
                        found,
                    )
                })
            }
            FailoverRow::Keepalived => keepalived::run(&setup, runs, found),
            FailoverRow::Many | FailoverRow::TenThousand => continue,
        };
        done.with_context(|| format!("the row {row:?} failed"))?;
    }
    Ok(findings)
}

/// Starts FerroLB.
fn start(lab: &Lab) -> Result<()> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    start_speakers(lab, &FAILBACK_FLAGS)?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")
}

fn start_speakers(lab: &Lab, flags: &[&str]) -> Result<()> {
    let nodes = lab.nodes();
    nodes.iter().try_for_each(|node| lab.start_speaker(node, flags))?;
    nodes
        .iter()
        .try_for_each(|node| lab.wait_healthy(&speaker_name(node), node, ADMIN_PORT, "/readyz"))
}

/// Runs `work` with speakers that are started with `flags`, and then restarts the speakers with
/// [`FAILBACK_FLAGS`].
fn with_speakers(lab: &Lab, flags: &[&str], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let restart = |flags: &[&str]| {
        lab.nodes().iter().try_for_each(|node| lab.stop(&speaker_name(node), Signal::TERM))?;
        start_speakers(lab, flags)
    };
    restart(flags)?;
    work()?;
    restart(&FAILBACK_FLAGS)
}

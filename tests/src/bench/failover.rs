//! What a client sees when something happens to the owner of its Service's addresses, IPv4 and IPv6: a row for each thing that can happen, some runs a row. A
//! pod runs on every node, and before each run the owner's own pod is taken out of the Service, so that what is measured is the address and
//! not a dead endpoint.

mod dies;
mod forwarding;
mod many;
mod names;
mod planned;
mod runs;
mod scene;
mod ten_thousand;
mod yardstick;

use super::budgets;
use super::report::Findings;
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER, speaker_name};
use crate::setup::Tools;
use crate::topology::CONTROL_PLANE;
use crate::{Lab, Options, Signal};
use anyhow::{Context, Result};
use scene::Scene;
use std::time::Duration;

/// A node that is back takes its address again after so long: none of it is in a figure, and the default would make every run wait for it.
const FAILBACK: [&str; 2] = ["--failback-delay", "2s"];
/// Hellos as often as a network without loss allows.
const HELLO_20: [&str; 2] = ["--hello-interval", "20ms"];
/// Ten thousand Services are made in this time.
const TEN_THOUSAND_USUAL: Duration = Duration::from_secs(120);
/// A lab comes up and goes down in this time, on two cores.
const LAB_USUAL: Duration = Duration::from_secs(20);

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Row {
    /// The owner loses power, and is back.
    Dies,
    /// The owner's network cable is pulled.
    Link,
    /// The owner's speaker is killed.
    Killed,
    /// The owner's speaker is told to stop.
    Stopped,
    /// All speakers are restarted, one after another.
    Rolling,
    /// The owner of an address with TCP and UDP port 53 loses power.
    Names,
    /// The owner loses power, where hellos are sent every 20 ms.
    Hello20,
    /// Keepalived on the same nodes, adverts every 100 ms: the owner of its address loses power.
    Keepalived,
    /// The owner of 100 and of 1,000 addresses loses power, and of 1,000 of IPv6.
    Many,
    /// Speakers start among 10,000 addresses of IPv6, and their owner loses power.
    TenThousand,
}

impl Row {
    /// What one run takes on two cores, measured.
    const fn usual(self) -> Duration {
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

/// What these rows usually take.
pub fn usual(runs: usize, rows: &[Row]) -> Duration {
    let all: Duration = rows.iter().map(|row| row.usual()).sum();
    let once = if rows.contains(&Row::TenThousand) { TEN_THOUSAND_USUAL } else { Duration::ZERO };
    3 * LAB_USUAL + once + all * u32::try_from(runs).unwrap_or(u32::MAX)
}

/// Raises a lab for all rows but the last two, and one without kube-proxies for each of these: nobody connects, and so many Services would only
/// keep kube-proxies busy.
///
/// # Errors
/// When a cluster does not come to rest, or an address is not answered for again.
pub(super) fn run(tools: &Tools, options: &Options, runs: usize, rows: &[Row]) -> Result<Findings> {
    let mut findings = Findings::default();
    let (many, one): (Vec<Row>, _) = rows.iter().partition(|row| matches!(row, Row::Many | Row::TenThousand));
    if !one.is_empty() {
        findings.extend(super::in_lab(tools, options, |lab| of_one_address(lab, runs, &one))?);
    }
    let options = Options { proxy_mode: None, ..options.clone() };
    for row in many {
        let found = super::in_lab(tools, &options, |lab| {
            if row == Row::TenThousand {
                return ten_thousand::run(lab, runs, || start_speakers(lab, &FAILBACK));
            }
            start(lab)?;
            many::run(lab, runs)
        });
        findings.extend(found.with_context(|| format!("the row {row:?} could not be done"))?);
    }
    Ok(findings)
}

fn of_one_address(lab: &Lab, runs: usize, rows: &[Row]) -> Result<Findings> {
    start(lab)?;
    let (scene, mut findings) = (Scene::raise(lab)?, Findings::default());
    for row in rows {
        let found = &mut findings;
        let done = match row {
            Row::Dies => dies::power(&scene, runs, &budgets::FAILOVER_DIES, Some(&budgets::FAILOVER_BACK), found),
            Row::Link => dies::link(&scene, runs, found),
            Row::Killed => dies::killed(&scene, runs, found),
            Row::Stopped => planned::stopped(&scene, runs, found),
            Row::Rolling => planned::rolling(&scene, runs, found),
            Row::Names => names::run(lab, runs, found),
            Row::Hello20 => with_speakers(lab, &[FAILBACK, HELLO_20].concat(), || {
                dies::power(&scene, runs, &budgets::FAILOVER_HELLO_20, None, found)
            }),
            Row::Keepalived => yardstick::run(&scene, runs, found),
            Row::Many | Row::TenThousand => continue,
        };
        done.with_context(|| format!("the row {row:?} could not be done"))?;
    }
    Ok(findings)
}

/// Starts FerroLB.
fn start(lab: &Lab) -> Result<()> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    start_speakers(lab, &FAILBACK)?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")
}

fn start_speakers(lab: &Lab, flags: &[&str]) -> Result<()> {
    let nodes = lab.nodes();
    nodes.iter().try_for_each(|node| lab.start_speaker(node, flags))?;
    nodes.iter().try_for_each(|node| lab.wait_healthy(&speaker_name(node), node, ADMIN_PORT, "/readyz"))
}

/// Does `work` with speakers that were started with these flags, and starts them as they were when it is done.
fn with_speakers(lab: &Lab, flags: &[&str], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let restart = |flags: &[&str]| {
        lab.nodes().iter().try_for_each(|node| lab.stop(&speaker_name(node), Signal::TERM))?;
        start_speakers(lab, flags)
    };
    restart(flags)?;
    work()?;
    restart(&FAILBACK)
}

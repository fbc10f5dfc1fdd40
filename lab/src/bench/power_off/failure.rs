//! Failure of one machine of a kubeadm cluster while a client connects: a power failure, or an
//! orderly stop.

use super::setup::{PROBE_BEFORE, PROBE_INTERVAL};
use crate::lab::RunningProbe;
use crate::traffic::probe::ProbeReport;
use crate::{Lab, wait};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time without a lost connection that ends an outage.
const GOOD_TIME: Duration = Duration::from_secs(5);
/// Time for which the kernel of a machine that stops still replies.
const KERNEL_REPLIES: Duration = Duration::from_secs(2);

/// The client's report of a power failure.
#[derive(Debug)]
pub struct PowerFailure {
    pub machine: String,
    pub report: ProbeReport,
    /// Time of the power failure, and the time from the client's start to it.
    failed_at: Instant,
    pub at: Duration,
}

impl PowerFailure {
    /// Returns the time from the power failure to the last lost connection before [`GOOD_TIME`]
    /// without a lost one, in milliseconds, and the number of connections that were lost later: the
    /// client has used their ports before, for connections that were lost.
    pub fn good_after_ms(&self) -> (f64, usize) {
        let since = |lost: &Instant| lost.saturating_duration_since(self.failed_at);
        let mut losses: Vec<_> = self.report.losses.iter().map(since).collect();
        losses.sort_unstable();
        let end = losses.windows(2).position(|pair| pair[1] - pair[0] >= GOOD_TIME);
        let outage = end.map_or(losses.len(), |last| last + 1);
        let last = losses[..outage].last().copied().unwrap_or_default();
        (last.as_secs_f64() * 1000.0, losses.len() - outage)
    }

    /// Returns the number of connections that were lost in each second since the power failure.
    pub fn lost_per_second(&self) -> Vec<f64> {
        let length_s = self.report.length_ms / 1000.0 - self.at.as_secs_f64();
        let mut seconds = vec![0.0; length_s.max(0.0) as usize];
        for lost in &self.report.losses {
            let second = lost.saturating_duration_since(self.failed_at).as_secs() as usize;
            if let Some(count) = seconds.get_mut(second) {
                *count += 1.0;
            }
        }
        seconds
    }
}

/// Powers off the owner of the server's address while a client connects, and runs `meanwhile`. The
/// client continues to connect for `after` from the power failure on.
///
/// # Errors
/// If no machine owns the address, or if `meanwhile` fails.
pub fn power_off_owner<T>(
    lab: &Lab,
    server: SocketAddr,
    after: Duration,
    meanwhile: impl FnOnce(&str, Instant) -> Result<T>,
) -> Result<(PowerFailure, T)> {
    let machine = lab.owner_of(server.ip())?.context("no machine replies for the address")?;
    power_off(lab, &machine, server, after, meanwhile)
}

/// Powers off this machine; otherwise as [`power_off_owner`].
///
/// # Errors
/// As for [`power_off_owner`].
pub fn power_off<T>(
    lab: &Lab,
    machine: &str,
    server: SocketAddr,
    after: Duration,
    meanwhile: impl FnOnce(&str, Instant) -> Result<T>,
) -> Result<(PowerFailure, T)> {
    let (start, probing) = (wait::now(), start_client(lab, server, after)?);
    let failed_at = wait::now();
    lab.power_off(machine)?;
    let found = meanwhile(machine, failed_at)?;
    let (machine, at) = (machine.to_owned(), failed_at - start);
    Ok((PowerFailure { machine, report: probing.finish()?, failed_at, at }, found))
}

/// Stops this machine as the command `poweroff` does, while a client connects until `after` the
/// machine's power is off. The report counts from then on.
///
/// # Errors
/// If the machine is off.
pub fn shut_down(
    lab: &Lab,
    machine: &str,
    server: SocketAddr,
    after: Duration,
) -> Result<PowerFailure> {
    let (start, probing) = (wait::now(), start_client(lab, server, KERNEL_REPLIES + after)?);
    lab.stop_services(machine)?;
    wait::during(KERNEL_REPLIES, || Ok(()))?;
    let failed_at = wait::now();
    lab.power_off(machine)?;
    let (machine, at) = (machine.to_owned(), failed_at - start);
    Ok(PowerFailure { machine, report: probing.finish()?, failed_at, at })
}

/// Starts the client, which connects for this time after the return of this function.
fn start_client(lab: &Lab, server: SocketAddr, after: Duration) -> Result<RunningProbe> {
    let probing = lab.start_probe(server, PROBE_BEFORE + after, PROBE_INTERVAL);
    wait::during(PROBE_BEFORE, || Ok(()))?;
    Ok(probing)
}

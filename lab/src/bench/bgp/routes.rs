//! Routes of the router: every change of a route in its kernel with the time of the change, and
//! BIRD's statistics of its BGP neighbors.

use crate::routers::Router;
use crate::{Lab, wait};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Prefix that `ip monitor` writes before a removed route.
const REMOVED_PREFIX: &str = "Deleted ";

/// Records the route changes of a host until the value is dropped.
pub(super) struct RouteMonitor {
    monitor: Child,
    changes: Arc<Mutex<Vec<(Instant, String)>>>,
    thread: Option<JoinHandle<()>>,
}

impl RouteMonitor {
    /// Starts recording the route changes of a host.
    ///
    /// # Errors
    /// If `ip` cannot be started.
    pub(super) fn start(lab: &Lab, host: &str) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["-4", "monitor", "route"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut monitor =
            lab.within(host, || command.spawn())?.context("cannot start ip monitor")?;
        let lines =
            BufReader::new(monitor.stdout.take().context("ip monitor has no standard output")?)
                .lines();
        let changes = Arc::<Mutex<Vec<_>>>::default();
        let recorded = Arc::clone(&changes);
        let thread = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                recorded.lock().unwrap_or_else(PoisonError::into_inner).push((wait::now(), line));
            }
        });
        Ok(Self { monitor, changes, thread: Some(thread) })
    }

    /// Returns the time of the first change of the route to an address after `since`: of its
    /// addition if `added` is true, otherwise of its removal.
    pub(super) fn first_change(
        &self,
        address: IpAddr,
        added: bool,
        since: Instant,
    ) -> Option<Instant> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let matches = |line: &str| {
            let removed = line.strip_prefix(REMOVED_PREFIX);
            removed.is_none() == added
                && removed.unwrap_or(line).split_whitespace().next() == Some(&address.to_string())
        };
        changes.iter().find(|(at, line)| *at >= since && matches(line)).map(|(at, _)| *at)
    }

    /// Returns the number of routes that were removed after `since`.
    pub(super) fn removed_count(&self, since: Instant) -> usize {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().filter(|(at, line)| *at >= since && line.starts_with(REMOVED_PREFIX)).count()
    }
}

impl Drop for RouteMonitor {
    fn drop(&mut self) {
        // Killing the monitor ends the thread. An error means that the monitor ended already, which
        // is fine.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        self.thread.take().map(JoinHandle::join);
    }
}

/// Returns the number of routes that a BIRD router has received from all neighbors.
///
/// # Errors
/// If the router does not run.
pub(super) fn received_routes(router: &Router<'_>) -> Result<u64> {
    Ok(sum(&router.run_command(&["show", "protocols", "all"])?, "Routes:"))
}

/// Returns the number of routes with the community `GRACEFUL_SHUTDOWN` that a BIRD router has.
///
/// # Errors
/// If the router does not run.
pub(super) fn de_preferred_routes(router: &Router<'_>) -> Result<u64> {
    let command = ["show", "route", "where", "(65535,0)", "~", "bgp_community", "count"];
    // A line for each table: `10000 of 30000 routes for 10000 networks in table master4`.
    let text = router.run_command(&command)?;
    let counts = text.lines().filter(|line| line.contains(" routes for "));
    Ok(counts.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).sum())
}

/// Returns the number of announcements and withdrawals that BIRD has processed.
///
/// # Errors
/// See [`received_routes`].
pub(super) fn processed_updates(router: &Router<'_>) -> Result<u64> {
    let text = router.run_command(&["show", "protocols", "all"])?;
    Ok(sum(&text, "Import updates:") + sum(&text, "Import withdraws:"))
}

/// Sums the first number after `label` over all BGP protocols; other protocols, such as `kernel`,
/// do not count.
fn sum(text: &str, label: &str) -> u64 {
    let (mut sum, mut is_bgp) = (0, false);
    for line in text.lines() {
        if !line.starts_with(' ') {
            is_bgp = line.split_whitespace().nth(1) == Some("BGP");
        }
        let number =
            line.trim_start().strip_prefix(label).and_then(|rest| rest.split_whitespace().next());
        sum += number.filter(|_| is_bgp).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bgp_protocols_are_counted() {
        let text = "BIRD 2.0.12 ready.\nName       Proto      Table      State  Since         Info\n\
            kernel1    Kernel     master4    up     15:00:00\n    Routes:         7 imported, 9 exported\n\n\
            peer0      BGP        ---        up     15:00:01  Established\n  BGP state:          Established\n\
            \x20   Routes:         10000 imported, 0 exported, 10000 preferred\n\
            \x20     Import updates:          10003          0          0          0      10003\n\
            \x20     Import withdraws:            3          0        ---          0          3\n\
            peer1      BGP        ---        start  15:00:01  Active\n    Routes:         1 imported\n";
        assert_eq!(
            (sum(text, "Routes:"), sum(text, "Import updates:"), sum(text, "Import withdraws:")),
            (10_001, 10_003, 3)
        );
    }
}

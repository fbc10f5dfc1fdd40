//! Routes of the router: every change in its kernel with its time, and the statistics of its
//! neighbors.

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
const GONE: &str = "Deleted ";

/// Records the route changes of a host until the value is dropped.
pub(super) struct RouteMonitor {
    monitor: Child,
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    thread: Option<JoinHandle<()>>,
}

impl RouteMonitor {
    /// Starts recording the changes of a host.
    ///
    /// # Errors
    /// If `ip` cannot be started.
    pub(super) fn start(lab: &Lab, host: &str) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["-4", "monitor", "route"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut monitor =
            lab.within(host, || command.spawn())?.context("cannot start ip monitor")?;
        let lines = BufReader::new(monitor.stdout.take().context("its output")?).lines();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let notes = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                notes.lock().unwrap_or_else(PoisonError::into_inner).push((wait::now(), line));
            }
        });
        Ok(Self { monitor, seen, thread: Some(thread) })
    }

    /// Returns the time at which the route to an address was first added (`there`) or removed after
    /// `since`.
    pub(super) fn first(&self, address: IpAddr, there: bool, since: Instant) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |line: &str| {
            let gone = line.strip_prefix(GONE);
            gone.is_none() == there
                && gone.unwrap_or(line).split_whitespace().next() == Some(&address.to_string())
        };
        seen.iter().find(|(at, line)| *at >= since && is(line)).map(|(at, _)| *at)
    }

    /// Returns the number of routes that were removed after `since`.
    pub(super) fn gone(&self, since: Instant) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(at, line)| *at >= since && line.starts_with(GONE)).count()
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

/// Returns the number of routes that a BIRD has received from all neighbors.
///
/// # Errors
/// If BIRD does not run.
pub(super) fn received(router: &Router<'_>) -> Result<u64> {
    Ok(sum(&router.run_command(&["show", "protocols", "all"])?, "Routes:"))
}

/// Returns the number of announcements and withdrawals that BIRD has processed.
///
/// # Errors
/// See [`received`].
pub(super) fn updates(router: &Router<'_>) -> Result<u64> {
    let text = router.run_command(&["show", "protocols", "all"])?;
    Ok(sum(&text, "Import updates:") + sum(&text, "Import withdraws:"))
}

/// Sums the first number after `words` over all BGP protocols; other protocols, such as `kernel`,
/// do not count.
fn sum(text: &str, words: &str) -> u64 {
    let (mut sum, mut is_neighbour) = (0, false);
    for line in text.lines() {
        if !line.starts_with(' ') {
            is_neighbour = line.split_whitespace().nth(1) == Some("BGP");
        }
        let number =
            line.trim_start().strip_prefix(words).and_then(|rest| rest.split_whitespace().next());
        sum += number
            .filter(|_| is_neighbour)
            .and_then(|number| number.parse::<u64>().ok())
            .unwrap_or(0);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_neighbours_say_is_counted() {
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

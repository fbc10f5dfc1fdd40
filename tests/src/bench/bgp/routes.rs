//! The router's routes: each that comes or goes in its kernel, and when; and what its neighbours have sent it.

use crate::routers::Router;
use crate::{Lab, wait};
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// How `ip monitor` begins a line about a route that is gone.
const GONE: &str = "Deleted ";

/// Notes the changes of a host's routes until it is dropped.
pub(super) struct Watch {
    monitor: Child,
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// # Errors
    /// When `ip` cannot be started.
    pub(super) fn start(lab: &Lab, host: &str) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["-4", "monitor", "route"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut monitor = lab.within(host, || command.spawn())?.context("cannot start ip monitor")?;
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

    /// When the route to an address first came (`there`) or went after `since`, if it has.
    pub(super) fn first(&self, address: IpAddr, there: bool, since: Instant) -> Option<Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |line: &str| {
            let gone = line.strip_prefix(GONE);
            gone.is_none() == there && gone.unwrap_or(line).split_whitespace().next() == Some(&address.to_string())
        };
        seen.iter().find(|(at, line)| *at >= since && is(line)).map(|(at, _)| *at)
    }

    /// How many routes went after `since`.
    pub(super) fn gone(&self, since: Instant) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(at, line)| *at >= since && line.starts_with(GONE)).count()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its end is the end of the thread; that it has ended already is as well.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
        self.thread.take().map(JoinHandle::join);
    }
}

/// How many prefixes all neighbours of the router announce, together.
///
/// # Errors
/// When it does not run, or says what nobody expects.
pub(super) fn received(router: &Router<'_>) -> Result<u64> {
    sum(&router.ask(&["show bgp ipv4 unicast summary json"])?, "/peers", "/pfxRcd")
}

/// How many UPDATEs they have sent.
///
/// # Errors
/// As [`received`].
pub(super) fn updates(router: &Router<'_>) -> Result<u64> {
    sum(&router.ask(&["show bgp neighbors json"])?, "", "/messageStats/updatesRecv")
}

fn sum(text: &str, of: &str, figure: &str) -> Result<u64> {
    let all: Value = serde_json::from_str(text).context("no JSON")?;
    let neighbours = all.pointer(of).and_then(Value::as_object).into_iter().flatten();
    Ok(neighbours.filter_map(|(_, neighbour)| neighbour.pointer(figure)?.as_u64()).sum())
}

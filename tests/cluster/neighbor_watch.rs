//! Changes of the client's neighbor entries, as `ip monitor` reports them, and the kernel settings
//! with which the client revalidates its entries sooner.

use anyhow::{Context, Result};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, wait};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

/// Kernel settings with which an entry is reachable for about a second and then revalidated at its
/// next use (Linux Documentation/networking/ip-sysctl.rst). The defaults are 30 s and 5 s.
const REVALIDATION_SETTINGS: [(&str, &str); 2] =
    [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "0")];

/// A change of a neighbor entry.
#[derive(Clone, Debug)]
pub(crate) struct NeighborChange {
    pub(crate) at: Instant,
    pub(crate) address: IpAddr,
    /// MAC address in the entry, if the entry has one.
    pub(crate) mac: Option<String>,
    /// State of the entry after the change: `REACHABLE`, `STALE`, `PROBE`, `FAILED`, ... or
    /// `Deleted`.
    pub(crate) state: String,
}

/// Makes the client revalidate its neighbor entries soon and often.
pub(crate) fn revalidate_soon(lab: &Lab) -> Result<()> {
    lab.within(CLIENT, || {
        for family in ["ipv4", "ipv6"] {
            for (setting, value) in REVALIDATION_SETTINGS {
                let path = format!("/proc/sys/net/{family}/neigh/eth0/{setting}");
                fs::write(&path, value).with_context(|| path)?;
            }
        }
        Ok(())
    })?
}

/// A running `ip monitor`, which records changes of the client's entries. Drop ends the process.
pub(crate) struct NeighborWatch {
    monitor: Child,
    thread: Option<JoinHandle<Vec<NeighborChange>>>,
}

impl NeighborWatch {
    /// Starts `ip monitor` on the client's host.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let mut command = Command::new("ip");
        command
            .args(["monitor", "neigh", "dev", "eth0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut monitor =
            lab.within(CLIENT, || command.spawn())?.context("cannot start `ip monitor`")?;
        let output =
            monitor.stdout.take().map(BufReader::new).context("`ip monitor` has no output")?;
        let changes = || {
            output
                .lines()
                .map_while(Result::ok)
                .filter_map(|line| parse_change(wait::now(), &line))
                .collect()
        };
        Ok(Self { monitor, thread: Some(std::thread::spawn(changes)) })
    }

    /// Ends the process and returns all recorded changes, in order.
    pub(crate) fn stop(mut self) -> Result<Vec<NeighborChange>> {
        self.monitor.kill()?;
        let thread = self.thread.take().context("the watch has already been stopped")?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for NeighborWatch {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// Parses a line of `ip monitor`, such as `fd30::200 lladdr 02:fb:00:00:00:0b STALE`.
fn parse_change(at: Instant, line: &str) -> Option<NeighborChange> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mac =
        words.iter().skip_while(|word| **word != "lladdr").nth(1).map(|mac| (*mac).to_owned());
    let (address, state) = match words.as_slice() {
        ["Deleted", address, ..] => (address, "Deleted"),
        [address, .., state] => (address, *state),
        _ => return None,
    };
    Some(NeighborChange { at, address: address.parse().ok()?, mac, state: state.to_owned() })
}

//! What the client's kernel thinks of its neighbours, change by change, as `ip monitor` tells it; and how soon it doubts them.

use anyhow::{Context, Result};
use ferrolb_tests::topology::CLIENT;
use ferrolb_tests::{Lab, wait};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

/// A known neighbour is believed for about a second, and asked as soon as it is needed after that (Linux
/// Documentation/networking/ip-sysctl.rst): half a minute and five seconds by default.
const DOUBTS: [(&str, &str); 2] = [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "0")];

/// One change of an entry.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) at: Instant,
    pub(crate) address: IpAddr,
    /// The hardware address, if there is one.
    pub(crate) mac: Option<String>,
    /// `REACHABLE`, `STALE`, `PROBE`, `FAILED`, ... or `Deleted`.
    pub(crate) state: String,
}

/// Makes the client doubt its neighbours soon and often.
pub(crate) fn doubt_soon(lab: &Lab) -> Result<()> {
    lab.within(CLIENT, || {
        for family in ["ipv4", "ipv6"] {
            for (setting, value) in DOUBTS {
                let path = format!("/proc/sys/net/{family}/neigh/eth0/{setting}");
                fs::write(&path, value).with_context(|| path)?;
            }
        }
        Ok(())
    })?
}

/// A watch under way; dropped, it ends its program.
pub(crate) struct Watch {
    monitor: Child,
    thread: Option<JoinHandle<Vec<Change>>>,
}

impl Watch {
    /// Watches from now on.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["monitor", "neigh", "dev", "eth0"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut monitor = lab.within(CLIENT, || command.spawn())?.context("cannot start `ip monitor`")?;
        let said = monitor.stdout.take().map(BufReader::new).context("it has an output")?;
        let changes = || said.lines().map_while(Result::ok).filter_map(|line| change(wait::now(), &line)).collect();
        Ok(Self { monitor, thread: Some(std::thread::spawn(changes)) })
    }

    /// Ends the watch; all changes, in order.
    pub(crate) fn stop(mut self) -> Result<Vec<Change>> {
        self.monitor.kill()?;
        let thread = self.thread.take().context("it is stopped once")?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// Reads a line like `fd30::200 lladdr 02:fb:00:00:00:0b STALE`.
fn change(at: Instant, line: &str) -> Option<Change> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mac = words.iter().skip_while(|word| **word != "lladdr").nth(1).map(|mac| (*mac).to_owned());
    let (address, state) = match words.as_slice() {
        ["Deleted", address, ..] => (address, "Deleted"),
        [address, .., state] => (address, *state),
        _ => return None,
    };
    Some(Change { at, address: address.parse().ok()?, mac, state: state.to_owned() })
}

//! Subcommands of `cargo lab`, with their output for people.

pub(crate) mod bench;
pub(crate) mod clean;
pub(crate) mod demo;
pub(crate) mod dist;
pub(crate) mod down;
pub(crate) mod enter;
pub(crate) mod fuzz;
pub(crate) mod images;
pub(crate) mod machine;
pub(crate) mod parts;
pub(crate) mod publish;
pub(crate) mod status;
pub(crate) mod test;
pub(crate) mod up;

use anyhow::Result;
use ferrolb_lab::traffic::probe::{self, Transport};
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Runs `work` to completion on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// Probes a server and prints the report.
pub(crate) fn probe(server: SocketAddr, length: Duration, step: Duration) -> Result<()> {
    anyhow::ensure!(!step.is_zero(), "STEP_MS is at least 1");
    let report =
        block_on(probe::probe(Transport::Tcp, server, length, step, &AtomicBool::new(false)))?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

//! Runs this program a second time as the worker that does the work, and only watches it: on Ctrl-C (or SIGTERM, SIGHUP), and after any
//! failure, the worker and the tools it runs are ended first and what it left is cleaned after, so that nothing races the clean-up.

use anyhow::{Context, Result};
use ferrolb_tests::{setup, teardown};
use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal, test_kill_process_group,
};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long the tools a worker runs may take over their own clean-up: apt-get finishes the package it is at.
const TOOLS_MAX: Duration = Duration::from_secs(20);
/// How often the worker's process group is looked at while it ends.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The exit code of a program that SIGINT ended, by the shells' custom.
const INTERRUPTED: u8 = 130;

/// Runs the same command line in a worker; its exit code.
///
/// # Errors
/// When the worker cannot be started, or something of it stays behind.
pub(crate) fn supervise() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(watch())?;
    match ended {
        Some(status) if status.success() => return Ok(ExitCode::SUCCESS),
        Some(_) => {}
        None => eprintln!("\nstopped; cleaning up"),
    }
    for lab in teardown::sweep()? {
        eprintln!("took down the lab {lab}");
    }
    let code = ended.map_or(INTERRUPTED, |status| status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    Ok(ExitCode::from(code))
}

/// Starts the worker and waits for its end; none when a signal came first, and everything of it has been ended.
async fn watch() -> Result<Option<ExitStatus>> {
    // Before the worker is born: a signal in between must not end this process without it.
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [interrupt, terminate, hangup] = &mut signals;
    let (Ok(interrupt), Ok(terminate), Ok(hangup)) = (interrupt, terminate, hangup) else {
        anyhow::bail!("cannot watch for signals");
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--worker").args(std::env::args_os().skip(1)).current_dir(setup::repository());
    // A process group of its own, to be ended whole.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut worker = tokio::process::Command::from(command).spawn().context("cannot start the worker")?;
    let group = worker.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the worker has no pid")?;
    tokio::select! {
        status = worker.wait() => return Ok(Some(status?)),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    // Each of these may find nothing left to signal, which is what is wanted.
    let _ = kill_process(group, Signal::KILL);
    let _ = kill_process_group(group, Signal::INT);
    worker.wait().await?;
    if tokio::time::timeout(TOOLS_MAX, gone(group)).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(None)
}

async fn gone(group: Pid) {
    while test_kill_process_group(group).is_ok() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Makes the kernel end this worker with its supervisor.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn die_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

//! Runs this program a second time as a worker, and only supervises it. After Ctrl-C (or SIGTERM,
//! SIGHUP) or a failure, the supervisor first ends the worker and its tools, and then cleans up, so
//! that nothing races the clean-up.

use anyhow::{Context, Result};
use ferrolb_lab::{setup, teardown};
use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal,
    test_kill_process_group,
};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Maximum time for the worker's tools to clean up: apt-get finishes the current package.
const CLEAN_UP_MAX: Duration = Duration::from_secs(20);
/// Interval of checks whether the worker's process group has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Exit code of a program that SIGINT ended, by the shells' convention.
const INTERRUPTED: u8 = 130;

/// Runs the same command line in a worker and returns its exit code.
///
/// # Errors
/// If the worker cannot be started, or its leftovers cannot be removed.
pub(crate) fn supervise() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run_worker())?;
    match ended {
        Some(status) if status.success() => return Ok(ExitCode::SUCCESS),
        Some(_) => {}
        None => eprintln!("\nstopped; cleaning up"),
    }
    for lab in teardown::sweep()? {
        eprintln!("stopped the lab {lab}");
    }
    let code = ended.map_or(INTERRUPTED, |status| {
        status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    });
    Ok(ExitCode::from(code))
}

/// Starts the worker and waits for its end. Returns `None` if this process received a signal first,
/// and has ended all processes of the worker.
async fn run_worker() -> Result<Option<ExitStatus>> {
    // The handlers are registered before the worker starts. Otherwise an early signal would end
    // this process, but not the worker.
    let mut signals =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [interrupt, terminate, hangup] = &mut signals;
    let (Ok(interrupt), Ok(terminate), Ok(hangup)) = (interrupt, terminate, hangup) else {
        anyhow::bail!("cannot watch for signals");
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--worker").args(std::env::args_os().skip(1)).current_dir(setup::repository());
    // The worker gets its own process group, so that its tools can be ended with it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut worker =
        tokio::process::Command::from(command).spawn().context("cannot start the worker")?;
    let group = worker
        .id()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .context("the worker has no pid")?;
    tokio::select! {
        status = worker.wait() => return Ok(Some(status?)),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    // An error means that there is no process left, which is the goal.
    let _ = kill_process(group, Signal::KILL);
    let _ = kill_process_group(group, Signal::INT);
    worker.wait().await?;
    if tokio::time::timeout(CLEAN_UP_MAX, wait_group_ended(group)).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
    }
    Ok(None)
}

async fn wait_group_ended(group: Pid) {
    while test_kill_process_group(group).is_ok() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Makes the kernel end this worker together with its supervisor.
///
/// # Errors
/// If the kernel rejects the request.
pub(crate) fn end_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

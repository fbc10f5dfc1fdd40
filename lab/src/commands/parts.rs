//! Work that uses only idle processor time: clusters leave processors idle most of the time.
//! `cargo lab idle` runs a program in this way. `cargo lab parts` builds the parts (programs and
//! images) that only later test tiers need; a run of all tiers starts it next to the first ones.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::process;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::setup::{gobgp, installers, kubeadm};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, getppid, kill_process_group, pidfd_open, setsid};
use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

/// Builds the missing parts in the order in which the tiers need them.
pub(crate) fn parts() -> Result<()> {
    gobgp::build_older()?;
    let machines = kubeadm::build()?;
    for plugin in NetworkPlugin::IN_EVERY_RUN {
        plugin.build(&machines.root)?;
    }
    installers::crane()?;
    installers::cosign()?;
    Ok(())
}

/// Runs a program with idle processor time only, and ends it when the parent process ends.
pub(crate) fn idle(program: &[String]) -> Result<()> {
    let parent = pidfd_open(getppid().context("there is no parent process")?, PidfdFlags::empty())?;
    // The scheduler groups by session, so the policy of `chrt` alone has no effect on programs of
    // other sessions (sched(7), autogroup).
    let session = setsid()?;
    process::set_idle_priority(session.as_raw_nonzero().get());
    std::thread::spawn(move || {
        // The result does not matter: no one is left to receive an error.
        let _ = poll(&mut [PollFd::new(&parent, PollFlags::IN)], None);
        kill_process_group(session, Signal::KILL)
    });
    let mut chrt = Command::new("chrt");
    let status = chrt.args(["--idle", "0"]).args(program).status();
    let status = status.context("cannot start chrt: apt-get install util-linux")?;
    ensure!(status.success(), "`{}` failed ({status})", program.join(" "));
    Ok(())
}

/// Returns a command that runs a program, whose arguments the caller adds, like [`idle`].
///
/// # Errors
/// If the path of this program is unknown.
pub(crate) fn idle_command(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("idle").arg(program);
    Ok(command)
}

/// Runs [`parts`] in a process that uses only idle processor time, and waits for it when dropped. A
/// tier that needs an unfinished part waits at the lock of its cache entry. If a part does not
/// build, the tier that needs it builds it again and reports the error.
pub(crate) struct BackgroundBuild(Child);

impl BackgroundBuild {
    /// Starts the process that runs [`parts`].
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(crate) fn start() -> Result<Self> {
        let mut command = idle_command(std::env::current_exe()?)?;
        command.arg("parts").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn().context("cannot start the build of the parts")?))
    }
}

impl Drop for BackgroundBuild {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

//! `cargo lab parts`: builds the parts (programs and images) that only later test tiers need. A run
//! of all tiers starts this command in parallel with the earlier tiers. The command uses only idle
//! processor time, and scenarios leave the processor idle most of the time.

use anyhow::{Context, Result};
use ferrolb_lab::process;
use ferrolb_lab::setup::kubernetes::KubernetesVersion;
use ferrolb_lab::setup::{installers, kubeadm, metallb};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, getppid, kill_process_group, pidfd_open, setsid};
use std::process::{Child, Command, Stdio};

/// Builds the missing parts in the order in which the tiers need them.
pub(crate) fn parts() -> Result<()> {
    lower_own_priority()?;
    metallb::build()?;
    KubernetesVersion::Oldest.build()?;
    installers::kustomize()?;
    installers::helm()?;
    kubeadm::build()?;
    Ok(())
}

/// Moves this process to a new session with the lowest priority, and ends that session when the
/// parent process ends.
fn lower_own_priority() -> Result<()> {
    let parent = pidfd_open(getppid().context("there is no parent process")?, PidfdFlags::empty())?;
    let session = setsid()?;
    process::lower_priority(session.as_raw_nonzero().get());
    std::thread::spawn(move || {
        // The result does not matter: no one is left to receive an error.
        let _ = poll(&mut [PollFd::new(&parent, PollFlags::IN)], None);
        kill_process_group(session, Signal::KILL)
    });
    Ok(())
}

/// Runs [`parts`] in a process that uses only idle processor time. A tier that needs an unfinished
/// part waits at the lock of its cache entry. If a part does not build, the tier that needs it
/// builds it again and reports the error.
pub(crate) struct BackgroundBuild(Child);

impl BackgroundBuild {
    /// Starts the process that runs [`parts`].
    ///
    /// # Errors
    /// If `chrt` is missing, which is part of Debian's essential packages.
    pub(crate) fn start() -> Result<Self> {
        let mut chrt = Command::new("chrt");
        chrt.args(["--idle", "0"]).arg(std::env::current_exe()?).args(["--worker", "parts"]);
        chrt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(chrt.spawn().context("cannot start chrt: apt-get install util-linux")?))
    }
}

impl Drop for BackgroundBuild {
    fn drop(&mut self) {
        // Waits, so that none of the build processes outlives this one.
        let _ = self.0.wait();
    }
}

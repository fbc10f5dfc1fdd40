//! `cargo lab parts`: builds what only the later tiers of tests need. A run of all tiers has it done beside the earlier ones, in the time that these leave
//! the processors, which is most of it: their stories wait.

use anyhow::{Context, Result};
use ferrolb_tests::process;
use ferrolb_tests::setup::kubernetes::Version;
use ferrolb_tests::setup::{installers, kubeadm};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, getppid, kill_process_group, pidfd_open, setsid};
use std::process::{Child, Command, Stdio};

/// Builds what is not there yet, in the order in which it is asked for.
pub(crate) fn parts() -> Result<()> {
    step_back()?;
    Version::Oldest.build()?;
    installers::kustomize()?;
    installers::helm()?;
    kubeadm::build()?;
    Ok(())
}

/// Moves to a session of its own, which yields to all others, and ends it when whoever started this process does.
fn step_back() -> Result<()> {
    let parent = pidfd_open(getppid().context("nobody started this")?, PidfdFlags::empty())?;
    let session = setsid()?;
    process::yield_session(session.as_raw_nonzero().get());
    std::thread::spawn(move || {
        // Whatever it says: nobody is left to be told.
        let _ = poll(&mut [PollFd::new(&parent, PollFlags::IN)], None);
        kill_process_group(session, Signal::KILL)
    });
    Ok(())
}

/// [`parts`] in a process of its own, which gets a processor when nobody else wants it. Whoever needs a part before it is there waits for it at the lock of
/// its shelf; one that does not build is told by the tier that needs it, which tries again.
pub(crate) struct Beside(Child);

impl Beside {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no `chrt`, which is of Debian's essential packages.
    pub(crate) fn start() -> Result<Self> {
        let mut chrt = Command::new("chrt");
        chrt.args(["--idle", "0"]).arg(std::env::current_exe()?).args(["--worker", "parts"]);
        chrt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(chrt.spawn().context("cannot start chrt: apt-get install util-linux")?))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What it builds by is not left behind.
        let _ = self.0.wait();
    }
}

//! A virtual machine with the files of this computer, and with version 2 of control groups alone:
//! User Mode Linux. A test runs its scenario in it.

use crate::run;
use crate::setup::user_mode_linux::{self, Kernel};
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, open};
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Size of the disk, which takes only as much space as its files.
const DISK_BYTES: u64 = 16 << 30;
/// Number of output lines of a failed program to show.
const LAST_LINES: usize = 100;
/// Maximum time in which the program ends.
const TIME_MAX: Duration = Duration::from_secs(3600);
/// Environment variables that the program inherits: where its tools and their caches are.
const INHERITED: [&str; 6] =
    ["PATH", "HOME", "XDG_CACHE_HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_TARGET_DIR"];
/// Environment variable that only a program in a virtual machine has.
const INSIDE: &str = "FERROLB_VIRTUAL_MACHINE";
/// Arguments of the kernel. Its root is this computer's, the program's output is the kernel's, and
/// the disk is the kernel's standard input.
const KERNEL: [&str; 10] = [
    "mem=6G",
    "ncpus=2",
    "seccomp=on",
    "quiet",
    "rw",
    "rootfstype=hostfs",
    "ubda=/proc/self/fd/0",
    "uml_dir=/run",
    "con0=null,fd:1",
    "con1=null,fd:2",
];
/// Starts the kernel with a `/run` of its own, for the files that the kernel writes.
const START_SCRIPT: &str = r#"mount -t tmpfs tmpfs /run
exec timeout --signal=KILL "$@""#;

/// Returns whether this program runs in a virtual machine.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs a program in a virtual machine. Its standard error is that of this process. The program and
/// its arguments are part of the kernel's command line, so they must contain no space.
///
/// # Errors
/// If the program fails, with the end of its standard output.
pub fn run(program: &Path, args: &[&str]) -> Result<()> {
    let Kernel { program: kernel, init } = user_mode_linux::build()?;
    // These processes end together with this one.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["sh", "-euc", START_SCRIPT, "sh", &TIME_MAX.as_secs().to_string()]);
    command.arg(kernel).args(KERNEL).arg(format!("init={}", init.display()));
    for name in INHERITED {
        command.args(env::var_os(name).map(|value| {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            setting
        }));
    }
    command.arg(format!("{INSIDE}=1")).arg("--").arg(program).args(args);
    let output = command.stdin(disk()?).stderr(Stdio::inherit()).output()?;
    ensure!(
        output.status.success(),
        "{} failed in a virtual machine ({}):\n{}",
        program.display(),
        output.status,
        run::last_lines(&String::from_utf8_lossy(&output.stdout), LAST_LINES)
    );
    Ok(())
}

/// Returns an empty ext4 disk: a file without a name, which ends with its last user.
fn disk() -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = open(env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)
        .context("cannot create a disk in the directory of temporary files")?;
    let file = File::from(file);
    file.set_len(DISK_BYTES)?;
    let mut format = Command::new("mkfs.ext4");
    format.args(["-q", "/proc/self/fd/0"]).stdin(file.try_clone()?).stdout(Stdio::null());
    let status = format.status().context("cannot start mkfs.ext4")?;
    ensure!(status.success(), "mkfs.ext4 failed: {status}");
    Ok(file)
}

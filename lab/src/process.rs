//! Processes of a lab. Each starts in its namespace and in a session of its own, and has a record:
//! the pid and the start time, which together identify a process even if the pid is reused, and the
//! start parameters.

use crate::netns;
use crate::state::LabState;
use crate::wait::WorkClock;
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, nice, pidfd_open, pidfd_send_signal, setpriority_pgrp,
    setsid, waitpid,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Maximum time in which a killed process ends.
const KILL_MAX: Duration = Duration::from_secs(10);
/// Nice value of a low-priority process (sched(7)): it gets a tenth of the time of a process with
/// normal priority, and seven times that of work with [`IDLE_NICE_VALUE`].
const NICE_VALUE: i32 = 10;
/// Nice value of the session of work that uses only idle processor time.
const IDLE_NICE_VALUE: i32 = 19;
/// Search path of the lab's programs; the user's own PATH does not apply in a lab.
const TOOL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Start parameters of a process of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Name of the process in the lab, and of its log.
    pub name: String,
    /// Host or pod whose namespace the process runs in.
    pub host: String,
    /// Node whose power failure ends the process.
    pub node: Option<String>,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// True if the process runs at low priority, so that another lab that starts does not delay the
    /// tested programs.
    #[serde(default)]
    pub low_priority: bool,
}

/// Record of a started process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessRecord {
    pub launch: Launch,
    pub pid: i32,
    /// Start time in clock ticks since the machine's boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

impl ProcessRecord {
    /// Returns whether the recorded process still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Gives a process of low priority the normal one, if it still runs.
    pub fn restore_priority(&self) {
        if self.launch.low_priority && self.is_alive() {
            restore_priority(self.pid);
        }
    }
}

/// Starts a process and records it. The log continues that of an earlier process of the same name.
///
/// # Errors
/// If the program does not exist, or a process of the same name still runs.
pub fn start(state: &LabState, launch: Launch) -> Result<ProcessRecord> {
    if find(state, &launch.name).is_some_and(|old| old.is_alive()) {
        bail!("{} already runs in the lab {}", launch.name, state.name);
    }
    let namespace = netns::open(&state.name.namespace(&launch.host))?;
    let log = File::options().create(true).append(true).open(log_path(state, &launch.name))?;
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().env("PATH", TOOL_PATH).envs(&launch.env);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let low_priority = launch.low_priority;
    let prepare = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        setsid()?;
        if low_priority {
            nice(NICE_VALUE)?;
        }
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "a child can enter its namespace and session only between fork and exec"
    )]
    // SAFETY: the closure only makes system calls on descriptors and values that it owns. The
    // closure takes no lock and does not allocate.
    unsafe {
        command.pre_exec(prepare);
    }
    let child =
        command.spawn().with_context(|| format!("cannot start {}", launch.program.display()))?;
    let pid = i32::try_from(child.id()).context("the pid does not fit into an i32")?;
    if low_priority {
        set_session_priority(pid, NICE_VALUE);
    }
    // A program that ends at once has no start time. Its record then counts as not alive, and its
    // log contains the reason.
    let record = ProcessRecord { launch, pid, start: start_time(pid).unwrap_or_default() };
    fs::write(record_path(state, &record.launch.name), serde_json::to_vec_pretty(&record)?)?;
    Ok(record)
}

/// Gives the process's session the lowest priority. Without autogroup, this function has no effect.
pub fn set_idle_priority(pid: i32) {
    set_session_priority(pid, IDLE_NICE_VALUE);
}

/// Sets the nice value of the process's session. If the scheduler groups by session (sched(7),
/// autogroup), the nice value of a process only counts within the session.
fn set_session_priority(pid: i32, nice_value: i32) {
    let _ = fs::write(format!("/proc/{pid}/autogroup"), nice_value.to_string());
}

/// Restores the normal priority of a process, of its threads and of its session.
fn restore_priority(pid: i32) {
    set_session_priority(pid, 0);
    if let Some(group) = Pid::from_raw(pid) {
        // An error means that the process is in the group of its parent, and has its priority.
        let _ = setpriority_pgrp(Some(group), 0);
    }
}

/// Sends `signal` to a process of the lab.
///
/// # Errors
/// If the process does not run.
pub fn signal(record: &ProcessRecord, signal: Signal) -> Result<()> {
    let name = &record.launch.name;
    let Some(pidfd) = open(record.pid, Some(record.start)) else { bail!("{name} is not running") };
    pidfd_send_signal(&pidfd, signal).with_context(|| format!("cannot signal {name}"))
}

/// Waits until a process of the lab has ended.
///
/// # Errors
/// If the process still runs after `limit`.
pub fn wait_end(record: &ProcessRecord, limit: Duration) -> Result<()> {
    wait_ended(record.pid, Some(record.start), limit)
        .with_context(|| format!("{} did not stop", record.launch.name))
}

/// Kills processes by id, and waits until they have ended.
///
/// # Errors
/// If a process still runs after ten seconds.
pub fn kill(processes: impl IntoIterator<Item = (i32, Option<u64>)>) -> Result<()> {
    let processes: Vec<_> = processes.into_iter().collect();
    for (pid, start) in &processes {
        if let Some(pidfd) = open(*pid, *start) {
            // A killed process needs processor time to end, which a busy machine does not give to a
            // process of low priority.
            restore_priority(*pid);
            // An error means that the process has just ended, which is the goal.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
    processes.iter().try_for_each(|(pid, start)| wait_ended(*pid, *start, KILL_MAX))
}

/// Returns the record of the lab's process of this name.
pub fn find(state: &LabState, name: &str) -> Option<ProcessRecord> {
    serde_json::from_slice(&fs::read(record_path(state, name)).ok()?).ok()
}

/// Returns all records of a lab, by name.
pub fn records(state: &LabState) -> Vec<ProcessRecord> {
    let Ok(entries) = fs::read_dir(state.file("processes")) else { return Vec::new() };
    let mut records: Vec<ProcessRecord> = entries
        .flatten()
        .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
        .collect();
    records.sort_by(|a, b| a.launch.name.cmp(&b.launch.name));
    records
}

/// Removes the record of an ended process.
pub fn remove_record(state: &LabState, name: &str) {
    let _ = fs::remove_file(record_path(state, name));
}

/// Returns the complete log of the process.
pub fn log(state: &LabState, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(log_path(state, name)).unwrap_or_default()).into_owned()
}

fn record_path(state: &LabState, name: &str) -> PathBuf {
    state.file("processes").join(format!("{name}.json"))
}

fn log_path(state: &LabState, name: &str) -> PathBuf {
    state.file("logs").join(format!("{name}.log"))
}

/// Opens a handle on the process with this pid and, if known, this start time.
fn open(pid: i32, start: Option<u64>) -> Option<std::os::fd::OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Read after the handle exists: from then on the pid cannot be reused.
    let now = start_time(pid)?;
    (start.is_none() || start == Some(now)).then_some(pidfd)
}

fn wait_ended(pid: i32, start: Option<u64>, limit: Duration) -> Result<()> {
    // Does not use `open`: for `open`, a program whose first thread has ended counts as ended,
    // while its other threads may still run.
    let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return Ok(());
    };
    if let (Some(start), Some(now)) = (start, start_time(pid))
        && start != now
    {
        return Ok(());
    }
    let clock = WorkClock::start();
    loop {
        let remaining = limit.saturating_sub(clock.elapsed());
        let timeout = Timespec {
            tv_sec: remaining.as_secs().cast_signed(),
            tv_nsec: remaining.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if remaining.is_zero() => bail!("process {pid} still runs after {limit:?}"),
            Ok(0) | Err(_) => {}
            Ok(_) => break,
        }
    }
    reap(pid);
    Ok(())
}

/// Reaps an ended child. For a child of another process this has no effect.
fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
}

/// Returns the start time of a process; `None` if there is no such process, or only a zombie.
fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Returns the fields of `/proc/PID/stat` (proc(5)) from the third on. The second is the program's
/// name in parentheses, with arbitrary characters.
fn fields_after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat[stat.rfind(')')? + 1..].split_whitespace())
}

/// Returns the start time from `/proc/PID/stat`; `None` for a zombie.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = fields_after_name(stat)?;
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_parsed_after_any_program_name() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        for (stat, expect) in [
            (format!("7 (etcd) S {tail}"), Some(4711)),
            (format!("7 (a) Z (b) R {tail}"), Some(4711)),
            (format!("7 (etcd) Z {tail}"), None),
            ("7 (etcd".to_owned(), None),
            ("7 (etcd) S 1".to_owned(), None),
        ] {
            assert_eq!(parse_stat(&stat), expect, "{stat}");
        }
    }

    #[test]
    fn a_pid_with_another_start_time_is_not_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = start_time(pid).unwrap();
        kill([(pid, Some(start + 1))]).unwrap();
        assert!(
            child.try_wait().unwrap().is_none(),
            "a process with another start time was killed"
        );
        kill([(pid, Some(start))]).unwrap();
        assert_eq!(start_time(pid), None);
    }
}

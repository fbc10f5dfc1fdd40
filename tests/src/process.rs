//! A lab's processes. Each is born inside its namespace, in a session of its own, and leaves a record: its identity (pid and start time,
//! so that a reused pid is never mistaken for it) and how to start it again.

use crate::state::State;
use crate::{netns, wait};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, nice, pidfd_open, pidfd_send_signal, setsid, waitpid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a killed process may take to go.
const DEATH_MAX: Duration = Duration::from_secs(10);
/// How nice a process is that yields (sched(7)).
const NICE: i32 = 19;
/// Where the lab's programs look for tools: the user's own settings do not reach into a lab.
const TOOL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How to start a process of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// Its name in the lab, and of its log.
    pub name: String,
    /// Whose namespace it lives in: a host or a pod.
    pub host: String,
    /// The node whose power it hangs on.
    pub node: Option<String>,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// It gets a processor when nothing else wants it, so that another lab which starts does not keep waiting what is tested here.
    #[serde(default)]
    pub yields: bool,
}

/// A process that was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub launch: Launch,
    pub pid: i32,
    /// When it started, in clock ticks since the machine did (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

impl Record {
    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// Starts a process and records it. Its log goes on where an earlier process of that name stopped.
///
/// # Errors
/// When the program is not there, or one of that name still runs.
pub fn start(state: &State, launch: Launch) -> Result<Record> {
    if find(state, &launch.name).is_some_and(|old| old.is_alive()) {
        bail!("{} already runs in the lab {}", launch.name, state.name);
    }
    let namespace = netns::open(&state.name.namespace(&launch.host))?;
    let log = File::options().create(true).append(true).open(log_path(state, &launch.name))?;
    let mut command = Command::new(&launch.program);
    command.args(&launch.args).env_clear().env("PATH", TOOL_PATH).envs(&launch.env);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let yields = launch.yields;
    let prepare = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        setsid()?;
        if yields {
            nice(NICE)?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "a child can enter its namespace and session only between fork and exec")]
    // SAFETY: the closure makes system calls alone, on what it already holds: it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(prepare);
    }
    let child = command.spawn().with_context(|| format!("cannot start {}", launch.program.display()))?;
    let pid = i32::try_from(child.id()).context("a pid is an i32")?;
    if yields {
        yield_session(pid);
    }
    // A program that is gone at once has no start time; its record then says "not alive", and its log says why.
    let record = Record { launch, pid, start: start_time(pid).unwrap_or_default() };
    fs::write(record_path(state, &record.launch.name), serde_json::to_vec_pretty(&record)?)?;
    Ok(record)
}

/// Has the session of this process yield to all others: where sessions are groups of the scheduler (sched(7), autogroup), how nice a process is counts
/// in its own alone. Elsewhere this changes nothing.
pub fn yield_session(pid: i32) {
    let _ = fs::write(format!("/proc/{pid}/autogroup"), NICE.to_string());
}

/// Sends `signal` to a process of the lab.
///
/// # Errors
/// When it does not run.
pub fn signal(record: &Record, signal: Signal) -> Result<()> {
    let name = &record.launch.name;
    let Some(pidfd) = open(record.pid, Some(record.start)) else { bail!("{name} does not run") };
    pidfd_send_signal(&pidfd, signal).with_context(|| format!("cannot signal {name}"))
}

/// Waits until a process of the lab has ended.
///
/// # Errors
/// When it has not within `limit`.
pub fn wait_end(record: &Record, limit: Duration) -> Result<()> {
    wait_gone(record.pid, Some(record.start), limit)
        .with_context(|| format!("{} was told to stop and did not", record.launch.name))
}

/// Kills processes by id, and waits until they are gone.
///
/// # Errors
/// When one survives for ten seconds.
pub fn kill(victims: impl IntoIterator<Item = (i32, Option<u64>)>) -> Result<()> {
    let victims: Vec<_> = victims.into_iter().collect();
    for (pid, start) in &victims {
        if let Some(pidfd) = open(*pid, *start) {
            // It may end in this very moment, which is what is wanted.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
    victims.iter().try_for_each(|(pid, start)| wait_gone(*pid, *start, DEATH_MAX))
}

/// The record of the lab's process of this name.
pub fn find(state: &State, name: &str) -> Option<Record> {
    serde_json::from_slice(&fs::read(record_path(state, name)).ok()?).ok()
}

/// All records of a lab, by name.
pub fn records(state: &State) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(state.file("processes")) else { return Vec::new() };
    let mut records: Vec<Record> =
        entries.flatten().filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()).collect();
    records.sort_by(|a, b| a.launch.name.cmp(&b.launch.name));
    records
}

/// Forgets a process that is gone.
pub fn forget(state: &State, name: &str) {
    let _ = fs::remove_file(record_path(state, name));
}

/// All that the process has said so far.
pub fn log(state: &State, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(log_path(state, name)).unwrap_or_default()).into_owned()
}

fn record_path(state: &State, name: &str) -> PathBuf {
    state.file("processes").join(format!("{name}.json"))
}

fn log_path(state: &State, name: &str) -> PathBuf {
    state.file("logs").join(format!("{name}.log"))
}

/// A handle on the process that has this pid and, where known, started then.
fn open(pid: i32, start: Option<u64>) -> Option<std::os::fd::OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after the handle is there: the pid cannot be reused under it any more.
    let now = start_time(pid)?;
    (start.is_none() || start == Some(now)).then_some(pidfd)
}

fn wait_gone(pid: i32, start: Option<u64>, limit: Duration) -> Result<()> {
    // Not `open`: a program whose first thread has ended counts as ended there, while its other threads may still run.
    let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return Ok(());
    };
    if let (Some(start), Some(now)) = (start, start_time(pid))
        && start != now
    {
        return Ok(());
    }
    let end = wait::now() + limit;
    loop {
        let left = end.saturating_duration_since(wait::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => bail!("process {pid} still runs after {limit:?}"),
            Ok(_) => break,
            Err(_) => {}
        }
    }
    reap(pid);
    Ok(())
}

/// Takes an ended child's exit code; of somebody else's child there is none to take.
fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
}

/// When a process started; none when there is no such process, or only what is left of an ended one.
fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The fields of `/proc/PID/stat` (proc(5)) from the third on. The second is the program's name, in brackets, and may hold anything.
fn after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat[stat.rfind(')')? + 1..].split_whitespace())
}

/// The start time out of `/proc/PID/stat`; none for a zombie.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = after_name(stat)?;
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_read_past_any_program_name() {
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
    fn a_pid_that_started_at_another_time_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = start_time(pid).unwrap();
        kill([(pid, Some(start + 1))]).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "a stranger was killed");
        kill([(pid, Some(start))]).unwrap();
        assert_eq!(start_time(pid), None);
    }
}

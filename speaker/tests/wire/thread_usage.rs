//! Processor time and wake-ups of the threads of interfaces.

use std::fs;
use std::path::PathBuf;

use ferrolb_proto::Instant;
use ferrolb_runtime::clock::Clock;

/// Resources that a thread has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadUsage {
    /// Processor time in seconds.
    pub(crate) seconds: f64,
    /// Number of sleeps. Each one ends with a wake-up.
    pub(crate) sleeps: f64,
}

/// Measurement of the threads of all interfaces with one name.
pub(crate) struct Measurement<'a> {
    link: &'a str,
    start: Instant,
    before: Vec<ThreadUsage>,
}

impl<'a> Measurement<'a> {
    pub(crate) fn start(link: &'a str) -> Self {
        Self { link, start: Clock::now(), before: thread_usages(link) }
    }

    /// Returns the duration of the measurement in seconds, and the highest use of a thread per
    /// second.
    pub(crate) fn maximum_per_second(&self) -> (f64, ThreadUsage) {
        let took = Clock::now().since(self.start).as_secs_f64();
        let now = thread_usages(self.link);
        let maximum = |value: fn(&ThreadUsage) -> f64| {
            let used = now.iter().zip(&self.before).map(|(now, before)| value(now) - value(before));
            used.fold(0.0, f64::max) / took
        };
        let (seconds, sleeps) = (maximum(|usage| usage.seconds), maximum(|usage| usage.sleeps));
        (took, ThreadUsage { seconds, sleeps })
    }
}

/// Returns the used resources of each thread of an interface with this name, sorted by thread id
/// (Linux Documentation/scheduler/sched-stats.rst; proc_pid_status(5)).
fn thread_usages(link: &str) -> Vec<ThreadUsage> {
    let tasks = fs::read_dir("/proc/self/task").expect("the threads of this process");
    let mut tasks: Vec<_> = tasks.flatten().map(|task| task.path()).collect();
    tasks.sort();
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    tasks.retain(|task| read(task.join("comm")).trim() == format!("link {link}"));
    let number = |text: Option<&str>| {
        text.and_then(|text| text.trim().parse::<f64>().ok()).expect("a number")
    };
    let usage = |task: &PathBuf| {
        let (times, status) = (read(task.join("schedstat")), read(task.join("status")));
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        ThreadUsage { seconds: number(times.split(' ').next()) / 1e9, sleeps: number(sleeps) }
    };
    tasks.iter().map(usage).collect()
}

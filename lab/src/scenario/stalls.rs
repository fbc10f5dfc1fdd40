//! Detection of processor stalls, which happen on shared machines: a thread on each processor wakes
//! up every few milliseconds and measures the delay.
//!
//! The nodes of a lab share the processors. If a processor stalls for 150 ms, other nodes correctly
//! declare the nodes that run on it failed.

use crate::wait;
use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Interval in which each thread wakes up.
const WAKE_INTERVAL: Duration = Duration::from_millis(10);

/// Measures stalls of the processors until [`StallMonitor::end`] or drop.
pub(super) struct StallMonitor {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl StallMonitor {
    /// Starts a thread on each processor that this process may use.
    ///
    /// # Errors
    /// If the kernel does not report those processors.
    pub(super) fn watch() -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let all = sched_getaffinity(None)?;
        let watch = |processor| {
            let mut own = CpuSet::new();
            own.set(processor);
            let stopped = Arc::clone(&stopped);
            std::thread::spawn(move || longest_stall(&stopped, &own))
        };
        let threads =
            (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor)).map(watch).collect();
        Ok(Self { stopped, threads })
    }

    /// Returns the longest stall of all processors.
    pub(super) fn end(mut self) -> Duration {
        self.stopped.store(true, Ordering::Relaxed);
        self.threads.drain(..).filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    }
}

impl Drop for StallMonitor {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how late this sleep ends")]
fn longest_stall(stopped: &AtomicBool, processor: &CpuSet) -> Duration {
    let mut longest = Duration::ZERO;
    // A thread that cannot be bound to its processor measures the one that it runs on.
    let _ = sched_setaffinity(None, processor);
    while !stopped.load(Ordering::Relaxed) {
        let start = wait::now();
        std::thread::sleep(WAKE_INTERVAL);
        longest = longest.max(start.elapsed().saturating_sub(WAKE_INTERVAL));
    }
    longest
}

//! How long a processor of this machine stands still, which on a shared one happens: a thread on each that wakes every few milliseconds sees it.
//! The nodes of a lab share the processors; one that stands still for 150 ms makes whoever is on it dead to the others, and rightly.

use crate::wait;
use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often each thread wakes.
const STEP: Duration = Duration::from_millis(10);

/// Watches the processors until it is asked or dropped.
pub(super) struct Stalls {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Stalls {
    /// Starts a thread on each processor that this process may use.
    ///
    /// # Errors
    /// When the kernel does not say which those are.
    pub(super) fn watch() -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let all = sched_getaffinity(None)?;
        let watch = |processor| {
            let mut own = CpuSet::new();
            own.set(processor);
            let over = Arc::clone(&over);
            std::thread::spawn(move || longest(&over, &own))
        };
        let threads = (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor)).map(watch).collect();
        Ok(Self { over, threads })
    }

    /// The longest that one of them stood still.
    pub(super) fn end(mut self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is how late this sleep ends")]
fn longest(over: &AtomicBool, processor: &CpuSet) -> Duration {
    let mut longest = Duration::ZERO;
    // One that cannot be bound to its processor watches the one it is on.
    let _ = sched_setaffinity(None, processor);
    while !over.load(Ordering::Relaxed) {
        let start = wait::now();
        std::thread::sleep(STEP);
        longest = longest.max(start.elapsed().saturating_sub(STEP));
    }
    longest
}

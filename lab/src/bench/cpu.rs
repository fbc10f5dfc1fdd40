//! Processor time of a process, as counted by the kernel.

use crate::{Lab, wait};
use anyhow::{Context, Result};
use std::io;
use std::time::Duration;

/// Runs `work` and returns the processor time that each of these processes of the lab uses during
/// `work`, in milliseconds per second.
///
/// # Errors
/// If `work` fails, or a process does not run.
pub(super) fn milliseconds_per_second(
    lab: &Lab,
    names: &[String],
    work: impl FnOnce() -> Result<()>,
) -> Result<Vec<f64>> {
    let used = || -> Result<Vec<Duration>> {
        names.iter().map(|name| processor_time(lab.pid(name)?)).collect()
    };
    let (start, before) = (wait::now(), used()?);
    work()?;
    let (after, length) = (used()?, start.elapsed());
    let seconds = length.as_secs_f64();
    let per_second =
        |(after, before): (Duration, Duration)| (after - before).as_secs_f64() * 1000.0 / seconds;
    Ok(after.into_iter().zip(before).map(per_second).collect())
}

/// Returns the processor time of a process and all its threads so far, in user and kernel mode.
///
/// # Errors
/// If the process does not run.
pub(super) fn processor_time(pid: i32) -> Result<Duration> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    #[expect(
        unsafe_code,
        reason = "no safe wrapper reads the clock of another process (clock_getcpuclockid(3))"
    )]
    // SAFETY: each call writes one value of the type that its pointer refers to.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    if failed {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("cannot read the processor time of process {pid}"));
    }
    Ok(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computing_increases_the_processor_time() {
        let pid = std::process::id().cast_signed();
        let before = processor_time(pid).unwrap();
        wait::until("the processor time increases by 20 ms", Duration::from_secs(10), || {
            std::hint::black_box(
                (0..1_000_000_u64).fold(0, |sum, number| sum ^ std::hint::black_box(number)),
            );
            Ok((processor_time(pid)? >= before + Duration::from_millis(20)).then_some(()))
        })
        .unwrap();
    }

    #[test]
    fn a_missing_process_has_no_processor_time() {
        // PID_MAX_LIMIT is lower, so the kernel never assigns this number.
        assert!(processor_time(1 << 22).is_err());
    }
}

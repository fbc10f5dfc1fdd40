//! What a process used of the processors, from the kernel's own books.

use crate::process;
use anyhow::{Context, Result, anyhow};
use std::fs;

/// The processor time that a process and all its threads have used so far, its own and the kernel's for it, in milliseconds; the kernel counts
/// it in hundredths of a second.
///
/// # Errors
/// When it does not run.
pub(super) fn used_ms(pid: i32) -> Result<f64> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let ticks = parse(&text).ok_or_else(|| anyhow!("{file} is not what proc(5) says"))?;
    Ok(ticks as f64 * 1000.0 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)) together, in clock ticks.
fn parse(stat: &str) -> Option<u64> {
    let mut times = process::after_name(stat)?.skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_own_time_and_the_kernel_s_for_it_are_added() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 31 999 999 20 0 2 0 4711";
        assert_eq!(parse(stat), Some(281));
        assert_eq!(parse("7 (etcd) S 1 7"), None);
    }

    #[test]
    fn a_process_that_computes_uses_time() {
        let pid = std::process::id().cast_signed();
        let before = used_ms(pid).unwrap();
        crate::wait::until("its time is counted", std::time::Duration::from_secs(10), || {
            std::hint::black_box((0..1_000_000_u64).fold(0, |sum, number| sum ^ std::hint::black_box(number)));
            Ok((used_ms(pid)? >= before + 20.0).then_some(()))
        })
        .unwrap();
    }
}

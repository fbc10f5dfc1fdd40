//! Progress display of a long run: each step with its number, elapsed and usual time. A terminal
//! shows a bar on a line that is redrawn. A log gets plain lines, and periodic lines during a long
//! step.

use crate::wait;
use anyhow::Result;
use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Interval of redraws on a terminal.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of lines about a running step in a plain log.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Width of the bar, in characters.
const BAR_WIDTH: usize = 20;
/// Assumed width of a terminal that does not report it, in characters.
const DEFAULT_COLUMNS: usize = 80;

/// Steps of one run.
#[derive(Debug)]
pub struct Steps {
    total: usize,
    started: usize,
    terminal: bool,
}

impl Steps {
    pub fn new(total: usize) -> Self {
        Self { total, started: 0, terminal: stderr().is_terminal() }
    }

    /// Runs one step and shows its progress. `usual` is the duration of the step as measured on two
    /// cores.
    ///
    /// # Errors
    /// If `work` fails.
    pub fn step<T: Send>(
        &mut self,
        title: &str,
        usual: Duration,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        self.started += 1;
        let heading = &format!("[{}/{}] {title}", self.started, self.total);
        let (start, terminal) = (wait::now(), self.terminal);
        let (ended, end) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if terminal {
                    draw(heading, usual, &end)
                } else {
                    write_lines(heading, usual, &end)
                }
            });
            let result = work();
            drop(ended);
            result
        })
        .inspect(|_| print_line(terminal, &done_line(heading, wait::now() - start)))
        .inspect_err(|_| {
            print_line(
                terminal,
                &format!("{heading}: failed after {}", format_duration(wait::now() - start)),
            )
        })
    }
}

fn draw(heading: &str, usual: Duration, end: &Receiver<()>) {
    let start = wait::now();
    loop {
        // The width is read each time, because the window may have been resized. A wrapped line
        // could not be overwritten.
        let columns = rustix::termios::tcgetwinsize(stderr())
            .map_or(DEFAULT_COLUMNS, |size| usize::from(size.ws_col));
        let _ = write!(
            stderr(),
            "\r\x1b[K{}",
            progress_line(heading, wait::now() - start, usual, columns)
        );
        if end.recv_timeout(REDRAW_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn write_lines(heading: &str, usual: Duration, end: &Receiver<()>) {
    let start = wait::now();
    print_line(false, &format!("{heading} (usually {})", format_duration(usual)));
    while end.recv_timeout(PROGRESS_INTERVAL) != Err(RecvTimeoutError::Disconnected) {
        print_line(
            false,
            &format!("{heading}: still running after {}", format_duration(wait::now() - start)),
        );
    }
}

fn print_line(terminal: bool, line: &str) {
    // An error from a closed terminal must not stop the clean-up.
    let _ = writeln!(stderr(), "{}{line}", if terminal { "\r\x1b[K" } else { "" });
}

fn done_line(heading: &str, elapsed: Duration) -> String {
    format!("{heading}: {}", format_duration(elapsed))
}

/// Formats the line of a running step, at most `columns` wide. The bar is never full before the
/// step ends.
fn progress_line(heading: &str, elapsed: Duration, usual: Duration, columns: usize) -> String {
    let part = elapsed.as_secs_f64() / usual.as_secs_f64().max(0.1);
    let full = (0..BAR_WIDTH)
        .filter(|cell| (*cell as f64 + 1.0) / (BAR_WIDTH as f64) <= part.min(0.95))
        .count();
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR_WIDTH - full));
    let tail = format!(" {bar} {} of usually {}", format_duration(elapsed), format_duration(usual));
    let title_width = columns.saturating_sub(tail.chars().count() + 1);
    heading.chars().take(title_width).collect::<String>() + &tail
}

/// Formats a time for people: `0.3 s`, `12 s`, `4 min 10 s`.
pub fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 if time.subsec_millis() >= 50 || seconds == 0 => {
            format!("{:.1} s", time.as_secs_f64())
        }
        0..60 => format!("{seconds} s"),
        60.. if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        60.. => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_for_people() {
        let cases = [
            (0, "0.0 s"),
            (320, "0.3 s"),
            (6000, "6 s"),
            (6500, "6.5 s"),
            (12_700, "12 s"),
            (60_000, "1 min"),
            (250_000, "4 min 10 s"),
        ];
        for (ms, expect) in cases {
            assert_eq!(format_duration(Duration::from_millis(ms)), expect);
        }
    }

    #[test]
    fn the_bar_is_never_full_before_the_end() {
        for (elapsed, full) in [(0, 0), (1, 2), (5, 10), (10, 19), (1000, 19)] {
            let line = progress_line(
                "[1/2] Build",
                Duration::from_secs(elapsed),
                Duration::from_secs(10),
                DEFAULT_COLUMNS,
            );
            assert_eq!(line.matches('█').count(), full, "{line}");
            assert_eq!(line.matches('░').count(), BAR_WIDTH - full, "{line}");
        }
    }

    #[test]
    fn a_long_title_is_cut_in_a_narrow_window() {
        let line = progress_line(
            &"x".repeat(200),
            Duration::ZERO,
            Duration::from_secs(6),
            DEFAULT_COLUMNS,
        );
        assert!(
            line.chars().count() < DEFAULT_COLUMNS && line.ends_with("0.0 s of usually 6 s"),
            "{line}"
        );
    }

    #[test]
    fn a_step_returns_the_result_of_its_work() {
        let mut steps = Steps { total: 2, started: 0, terminal: false };
        assert_eq!(steps.step("one", Duration::ZERO, || Ok(7)).unwrap(), 7);
        assert!(steps.step("two", Duration::ZERO, || Err::<(), _>(anyhow::anyhow!("no"))).is_err());
        assert_eq!(steps.started, 2);
    }
}

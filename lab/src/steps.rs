//! Progress display of a long run: each step with its number, elapsed and usual time. On a terminal
//! as a bar on a line that is redrawn; otherwise as plain lines, with a periodic line for a long
//! step.

use crate::wait;
use anyhow::Result;
use std::io::{IsTerminal, Write, stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Interval of redraws on a terminal.
const REDRAW: Duration = Duration::from_millis(100);
/// Interval of lines about a running step in a plain log.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Width of the bar, in characters.
const BAR: usize = 20;
/// Assumed width of a terminal that does not report it, in characters.
const NARROW: usize = 80;

/// Steps of one run.
#[derive(Debug)]
pub struct Steps {
    total: usize,
    done: usize,
    terminal: bool,
}

impl Steps {
    pub fn new(total: usize) -> Self {
        Self { total, done: 0, terminal: stderr().is_terminal() }
    }

    /// Runs one step and shows it. `usual` is its measured duration on two cores.
    ///
    /// # Errors
    /// If `work` fails.
    pub fn step<T: Send>(
        &mut self,
        title: &str,
        usual: Duration,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        self.done += 1;
        let head = &format!("[{}/{}] {title}", self.done, self.total);
        let (start, terminal) = (wait::now(), self.terminal);
        let (ended, end) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if terminal { draw(head, usual, &end) } else { write_lines(head, usual, &end) }
            });
            let result = work();
            drop(ended);
            result
        })
        .inspect(|_| say(terminal, &done_line(head, wait::now() - start)))
        .inspect_err(|_| {
            say(terminal, &format!("{head}: failed after {}", format_duration(wait::now() - start)))
        })
    }
}

fn draw(head: &str, usual: Duration, end: &Receiver<()>) {
    let start = wait::now();
    loop {
        // Read each time, because the window may have been resized. A wrapped line could not be
        // overwritten.
        let columns =
            rustix::termios::tcgetwinsize(stderr()).map_or(NARROW, |size| usize::from(size.ws_col));
        let _ = write!(
            stderr(),
            "\r\x1b[K{}",
            progress_line(head, wait::now() - start, usual, columns)
        );
        if end.recv_timeout(REDRAW) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn write_lines(head: &str, usual: Duration, end: &Receiver<()>) {
    let start = wait::now();
    say(false, &format!("{head} (usually {})", format_duration(usual)));
    while end.recv_timeout(PROGRESS_INTERVAL) != Err(RecvTimeoutError::Disconnected) {
        say(
            false,
            &format!("{head}: still running after {}", format_duration(wait::now() - start)),
        );
    }
}

fn say(terminal: bool, line: &str) {
    // An error from a closed terminal must not stop the clean-up.
    let _ = writeln!(stderr(), "{}{line}", if terminal { "\r\x1b[K" } else { "" });
}

fn done_line(head: &str, elapsed: Duration) -> String {
    format!("{head}: {}", format_duration(elapsed))
}

/// Formats the line of a running step within `columns`. The bar is never full before the step ends.
fn progress_line(head: &str, elapsed: Duration, usual: Duration, columns: usize) -> String {
    let part = elapsed.as_secs_f64() / usual.as_secs_f64().max(0.1);
    let full =
        (0..BAR).filter(|cell| (*cell as f64 + 1.0) / (BAR as f64) <= part.min(0.95)).count();
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(BAR - full));
    let tail = format!(" {bar} {} of usually {}", format_duration(elapsed), format_duration(usual));
    let room = columns.saturating_sub(tail.chars().count() + 1);
    head.chars().take(room).collect::<String>() + &tail
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
    fn times_are_said_as_people_say_them() {
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
    fn the_bar_follows_the_usual_time_and_never_fills_early() {
        for (elapsed, full) in [(0, 0), (1, 2), (5, 10), (10, 19), (1000, 19)] {
            let line = progress_line(
                "[1/2] Build",
                Duration::from_secs(elapsed),
                Duration::from_secs(10),
                NARROW,
            );
            assert_eq!(line.matches('█').count(), full, "{line}");
            assert_eq!(line.matches('░').count(), BAR - full, "{line}");
        }
    }

    #[test]
    fn a_long_title_gives_way_to_the_bar_in_a_narrow_window() {
        let line = progress_line(&"x".repeat(200), Duration::ZERO, Duration::from_secs(6), NARROW);
        assert!(line.chars().count() < NARROW && line.ends_with("0.0 s of usually 6 s"), "{line}");
    }

    #[test]
    fn a_step_gives_back_what_its_work_gave() {
        let mut steps = Steps { total: 2, done: 0, terminal: false };
        assert_eq!(steps.step("one", Duration::ZERO, || Ok(7)).unwrap(), 7);
        assert!(steps.step("two", Duration::ZERO, || Err::<(), _>(anyhow::anyhow!("no"))).is_err());
        assert_eq!(steps.done, 2);
    }
}

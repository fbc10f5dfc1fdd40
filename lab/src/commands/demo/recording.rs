//! The recording of the demo: printed lines with their times, as an animated SVG that a browser
//! plays without a script. A viewer without animations shows the first screen.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// Width and height of the recorded terminal, in characters and lines.
const COLUMNS: usize = 112;
const ROWS: usize = 32;
/// Size of a character cell, and the margin, in pixels.
const CELL_WIDTH: f64 = 8.4;
const CELL_HEIGHT: usize = 19;
const MARGIN: usize = 14;
/// Time between two lines of one text. A reader follows at this rate.
const LINE_TIME: Duration = Duration::from_millis(350);
/// Longest pause between two lines, however long the demo waits there.
const PAUSE_MAX: Duration = Duration::from_millis(1500);
/// Time for which the last screen remains before the recording starts again.
const END_TIME: Duration = Duration::from_secs(6);

/// Lines of the demo in the order of their times.
#[derive(Debug)]
pub(crate) struct Recording {
    start: Instant,
    lines: Vec<(Duration, String)>,
}

impl Recording {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, lines: Vec::new() }
    }

    /// Adds a text that was printed at `now`. Sentences that are wider than the terminal are
    /// wrapped, and rows of a table are cut.
    pub(crate) fn add(&mut self, now: Instant, text: &str) {
        let time = now.duration_since(self.start);
        let wrapped = text.trim_end_matches('\n').split('\n').flat_map(wrap);
        self.lines.extend(wrapped.map(|line| (time, line)));
    }

    /// Returns the recording as an SVG document.
    pub(crate) fn svg(&self) -> String {
        let times = shown_times(self.lines.iter().map(|(time, _)| *time));
        let total = times.last().copied().unwrap_or_default() + END_TIME;
        let fraction = |time: Duration| time.as_secs_f64() / total.as_secs_f64();
        let (width, height) =
            (COLUMNS as f64 * CELL_WIDTH + 2.0 * MARGIN as f64, ROWS * CELL_HEIGHT + 2 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height}\" \
             role=\"img\" aria-label=\"Recording of cargo lab demo\">\n\
             <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#161b22\"/>\n\
             <svg x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"{:.0}\" height=\"{}\">\n\
             <g font-family=\"ui-monospace,SFMono-Regular,Menlo,Consolas,monospace\" \
             font-size=\"14\" fill=\"#c9d1d9\" xml:space=\"preserve\">\n",
            COLUMNS as f64 * CELL_WIDTH,
            ROWS * CELL_HEIGHT,
        );
        let dur = format!("dur=\"{:.1}s\" repeatCount=\"indefinite\"", total.as_secs_f64());
        let scrolls = times.iter().enumerate().skip(ROWS);
        let (mut positions, mut key_times) = ("0 0".to_owned(), "0".to_owned());
        for (index, time) in scrolls {
            // Writing to a String cannot fail.
            let _ = write!(positions, ";0 -{}", (index + 1 - ROWS) * CELL_HEIGHT);
            let _ = write!(key_times, ";{:.4}", fraction(*time));
        }
        let _ = writeln!(
            svg,
            "<animateTransform attributeName=\"transform\" type=\"translate\" \
             calcMode=\"discrete\" values=\"{positions}\" keyTimes=\"{key_times}\" {dur}/>"
        );
        for (index, ((_, line), time)) in self.lines.iter().zip(&times).enumerate() {
            if line.is_empty() {
                continue;
            }
            let appears = format!(
                "<animate attributeName=\"opacity\" calcMode=\"discrete\" values=\"0;1\" \
                 keyTimes=\"0;{:.4}\" {dur}/>",
                fraction(*time),
            );
            let appears = if time.is_zero() { "" } else { &appears };
            let (y, color, line) = ((index + 1) * CELL_HEIGHT - 5, color(line), escape(line));
            let _ = writeln!(svg, "<text y=\"{y}\"{color}>{line}{appears}</text>");
        }
        svg + "</g>\n</svg>\n</svg>\n"
    }
}

/// Returns the times at which the recording shows the lines: the first one from the beginning,
/// pauses are cut to [`PAUSE_MAX`], and lines of the same time follow each other after
/// [`LINE_TIME`].
fn shown_times(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let (mut before, mut shown) = (None, Duration::ZERO);
    let time_of = |time: Duration| {
        let pause = before.replace(time).map(|before| time.saturating_sub(before));
        shown += pause.map_or(Duration::ZERO, |pause| pause.clamp(LINE_TIME, PAUSE_MAX));
        shown
    };
    times.map(time_of).collect()
}

/// Splits a line into lines of at most [`COLUMNS`] characters, at spaces where possible. Cuts a row
/// of a table, whose columns are three or more spaces apart.
fn wrap(line: &str) -> Vec<String> {
    if line.contains("   ") && line.chars().count() > COLUMNS {
        return vec![line.chars().take(COLUMNS - 1).chain(['…']).collect()];
    }
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let is_full = |line: &String| {
            !line.is_empty() && line.chars().count() + word.trim_end().chars().count() > COLUMNS
        };
        if lines.last().is_none_or(is_full) {
            lines.push(String::new());
        }
        if let Some(last) = lines.last_mut() {
            last.push_str(word);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Returns the attribute `fill` of a line that is a step or a command.
fn color(line: &str) -> &'static str {
    match line {
        _ if line.starts_with("==") => " fill=\"#7ee787\"",
        _ if line.starts_with("$ ") || line.starts_with("client$ ") => " fill=\"#79c0ff\"",
        _ => "",
    }
}

/// Escapes the characters that XML reserves.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_cut_and_lines_of_one_text_follow_each_other() {
        let ms = Duration::from_millis;
        let times = [ms(100), ms(100), ms(60_000), ms(60_700)];
        assert_eq!(shown_times(times.into_iter()), [ms(0), ms(350), ms(1850), ms(2550)]);
    }

    #[test]
    fn a_wide_line_is_wrapped_at_a_space() {
        let line = format!("{} {}", "a".repeat(70), "b".repeat(70));
        assert_eq!(wrap(&line), ["a".repeat(70), "b".repeat(70)]);
        assert_eq!(wrap("  NAME   IP"), ["  NAME   IP"]);
        let row = format!("NAME   {}", "a".repeat(COLUMNS));
        assert_eq!(wrap(&row), [format!("{}…", &row[..COLUMNS - 1])]);
        assert_eq!(wrap(""), [""]);
    }

    #[test]
    fn the_svg_has_each_line_once_and_scrolls() {
        let start = ferrolb_lab::wait::now();
        let mut recording = Recording::new(start);
        for line in 0..=ROWS {
            recording.add(start + Duration::from_secs(1), &format!("line <{line}>"));
        }
        let svg = recording.svg();
        assert_eq!(svg.matches("<text ").count(), ROWS + 1);
        assert_eq!(svg.matches("<animate ").count(), ROWS, "the first line is always visible");
        assert!(svg.contains("line &lt;32&gt;") && svg.contains("values=\"0 0;0 -19\""), "{svg}");
    }
}

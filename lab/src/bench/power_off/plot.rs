//! Plot of a share over time: as text for a terminal, as SVG for a page. Pure functions.

use std::fmt::Write;

/// Size of the plot and its margins, in pixels.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 320.0;
const MARGIN_LEFT: f64 = 50.0;
const MARGIN_RIGHT: f64 = 15.0;
const MARGIN_TOP: f64 = 80.0;
const MARGIN_BOTTOM: f64 = 40.0;
/// Height of one label above the plot, in pixels.
const LABEL_HEIGHT: f64 = 16.0;
/// Seconds between two numbers on the time axis.
const TICK_SECONDS: usize = 10;
/// Rows of the text plot, from 100 % down.
const TEXT_ROWS: usize = 10;

/// Returns the plot as text, one character per second. Each share covers `column` seconds.
pub(super) fn text(shares: &[f64], column: f64) -> String {
    let in_second = ((1.0 / column).round() as usize).max(1);
    let seconds: Vec<f64> =
        shares.chunks(in_second).map(|all| all.iter().sum::<f64>() / all.len() as f64).collect();
    let mut text = String::new();
    for row in (1..=TEXT_ROWS).rev() {
        let share_min = (row * 100 / TEXT_ROWS) as f64 - 50.0 / TEXT_ROWS as f64;
        let line: String =
            seconds.iter().map(|share| if *share >= share_min { '#' } else { ' ' }).collect();
        let _ = writeln!(text, "{:>4} |{}", row * 100 / TEXT_ROWS, line.trim_end());
    }
    let axis: String = (0..seconds.len())
        .map(|second| if second % TICK_SECONDS == 0 { '+' } else { '-' })
        .collect();
    let numbers: String = (0..seconds.len())
        .step_by(TICK_SECONDS)
        .map(|second| format!("{second:<TICK_SECONDS$}"))
        .collect();
    let _ = writeln!(text, "     +{axis}\n      {} s", numbers.trim_end());
    text
}

/// Returns the plot as SVG. Each of `marks` is the time in seconds of an event, and the event's
/// label.
pub(super) fn svg(shares: &[f64], column: f64, marks: &[(f64, &str)]) -> String {
    let seconds = shares.len() as f64 * column;
    let x = |second: f64| {
        MARGIN_LEFT + second / seconds.max(column) * (WIDTH - MARGIN_LEFT - MARGIN_RIGHT)
    };
    let y =
        |share: f64| MARGIN_TOP + (100.0 - share) / 100.0 * (HEIGHT - MARGIN_TOP - MARGIN_BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for share in [0.0, 50.0, 100.0] {
        let (at, end) = (y(share), WIDTH - MARGIN_RIGHT);
        let _ = writeln!(svg, "<path d=\"M{MARGIN_LEFT} {at:.1}H{end}\" stroke=\"#ccc\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{share} %</text>",
            MARGIN_LEFT - 5.0,
            at + 4.0
        );
    }
    let mut area = format!("M{:.1} {:.1}", x(0.0), y(0.0));
    for (index, share) in shares.iter().enumerate() {
        let _ = write!(area, "V{:.1}H{:.1}", y(*share), x((index + 1) as f64 * column));
    }
    let _ = writeln!(svg, "<path d=\"{area}V{:.1}Z\" fill=\"#7ab8e0\"/>", y(0.0));
    for second in (0..=seconds as usize).step_by(TICK_SECONDS) {
        let at = x(second as f64);
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            y(0.0) + 16.0
        );
    }
    for (line, (second, event)) in marks.iter().enumerate() {
        let (at, top) = (x(*second), LABEL_HEIGHT * (line as f64 + 1.0));
        let (anchor, offset) = if at > WIDTH / 2.0 { ("end", -4.0) } else { ("start", 4.0) };
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {:.1}V{:.1}\" stroke=\"#c00\" stroke-dasharray=\"3 2\"/>",
            top - 10.0,
            y(0.0)
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{top}\" text-anchor=\"{anchor}\">{event}, {second:.1} s</text>",
            at + offset
        );
    }
    let below = HEIGHT - 6.0;
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN_LEFT}\" y=\"{below}\">connections served, one started every 10 ms, in each {column} s</text>"
    );
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_one_character_per_second() {
        let shares: Vec<f64> =
            [100.0, 0.0, 67.0, 100.0].into_iter().flat_map(|share| [share; 10]).collect();
        let text = text(&shares, 0.1);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[3], lines[9]), (" 100 |#  #", "  70 |# ##", "  10 |# ##"));
        assert_eq!((lines[10], lines[11]), ("     ++---", "      0 s"));
    }

    #[test]
    fn the_svg_spans_the_plot_area() {
        let svg = svg(&[100.0, 0.0, 50.0], 0.1, &[(0.1, "off"), (0.3, "on")]);
        // The path from the lower left corner: up, a third to the right, down, a third to the
        // right, half up, to the right edge, down.
        assert!(svg.contains("M50.0 280.0V80.0H348.3V280.0H646.7V180.0H945.0V280.0Z"), "{svg}");
        assert!(
            svg.contains("text-anchor=\"start\">off, 0.1 s<")
                && svg.contains("text-anchor=\"end\">on, 0.3 s<"),
            "{svg}"
        );
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn no_samples_give_an_empty_plot() {
        assert!(svg(&[], 0.1, &[]).contains("fill=\"#7ab8e0\""));
        assert!(!text(&[], 0.1).contains('#'));
    }
}

//! Plot of the connections lost per second, one panel for each case, as SVG. Pure functions.

use std::fmt::Write;

/// Size of the plot, its panels and its margins, in pixels.
const WIDTH: f64 = 960.0;
const PANEL_HEIGHT: f64 = 80.0;
const PANEL_DISTANCE: f64 = 118.0;
const MARGIN_LEFT: f64 = 60.0;
const MARGIN_RIGHT: f64 = 15.0;
const MARGIN_TOP: f64 = 60.0;
const MARGIN_BOTTOM: f64 = 30.0;
/// Number of seconds on the time axis, and between two of its numbers.
const SECONDS: usize = 60;
const TICK_SECONDS: usize = 10;
/// Connections per second at the top of a panel.
const LOST_MAX: f64 = 100.0;
/// Colors and labels of the two series.
const SERIES: [(&str, &str); 2] =
    [("#c0392b", "--node-failure-endpoints=off"), ("#1f6fb2", "--node-failure-endpoints=services")];

/// Colors for readers whose browser prefers dark pages.
const DARK_MODE: &str = "<style>@media (prefers-color-scheme:dark){svg{fill:#e6edf3}\
                         [fill=\"#fff\"]{fill:#0d1117}[stroke=\"#ccc\"]{stroke:#3d444d}}</style>";

/// A panel: its title, and the numbers of lost connections in each second, for both series.
pub(super) type Panel<'a> = (&'a str, [&'a [f64]; 2]);

/// Returns the plot.
pub(super) fn svg(panels: &[Panel<'_>]) -> String {
    let height = MARGIN_TOP + PANEL_DISTANCE * panels.len() as f64 + MARGIN_BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>Connections lost per second after a node loses power</title>\n{DARK_MODE}\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (position, (color, label)) in SERIES.iter().enumerate() {
        let at = MARGIN_LEFT + 300.0 * position as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{at}\" y=\"10\" width=\"14\" height=\"10\" fill=\"{color}\" fill-opacity=\"0.6\"/>\
             <text x=\"{}\" y=\"19\">{label}</text>",
            at + 20.0
        );
    }
    for (position, panel) in panels.iter().enumerate() {
        let top = MARGIN_TOP + PANEL_DISTANCE * position as f64;
        svg.push_str(&panel_svg(panel, top));
    }
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN_LEFT}\" y=\"{}\">seconds since the power failure; connections lost per second, of {LOST_MAX}</text>",
        height - 10.0
    );
    svg + "</svg>\n"
}

fn panel_svg((title, series): &Panel<'_>, top: f64) -> String {
    let bottom = top + PANEL_HEIGHT;
    let width = WIDTH - MARGIN_LEFT - MARGIN_RIGHT;
    let x = |second: usize| MARGIN_LEFT + second as f64 / SECONDS as f64 * width;
    let y = |lost: f64| bottom - lost.min(LOST_MAX) / LOST_MAX * PANEL_HEIGHT;
    let mut svg = format!("<text x=\"{MARGIN_LEFT}\" y=\"{:.1}\">{title}</text>\n", top - 6.0);
    for lost in [0.0, LOST_MAX] {
        let (at, end) = (y(lost), WIDTH - MARGIN_RIGHT);
        let _ = writeln!(svg, "<path d=\"M{MARGIN_LEFT} {at:.1}H{end}\" stroke=\"#ccc\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{lost}</text>",
            MARGIN_LEFT - 5.0,
            at + 4.0
        );
    }
    for (values, (color, _)) in series.iter().zip(SERIES) {
        let mut area = format!("M{:.1} {bottom:.1}", x(0));
        let values = values.get(..SECONDS).unwrap_or(values);
        for (second, lost) in values.iter().enumerate() {
            let _ = write!(area, "V{:.1}H{:.1}", y(*lost), x(second + 1));
        }
        let _ = writeln!(
            svg,
            "<path d=\"{area}V{bottom:.1}Z\" fill=\"{color}\" fill-opacity=\"0.6\"/>"
        );
    }
    for second in (0..=SECONDS).step_by(TICK_SECONDS) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>",
            x(second),
            bottom + 14.0
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_panel_has_both_series() {
        let svg = svg(&[("first", [&[100.0, 50.0], &[0.0]]), ("second", [&[], &[10.0; 70]])]);
        assert!(svg.contains(">first<") && svg.contains(">second<"));
        // The first second at the top of the panel, the next one in its middle.
        assert!(svg.contains("M60.0 140.0V60.0H74.8V100.0H89.5V140.0Z"), "{svg}");
        // Seconds after the end of the axis are left out.
        assert!(svg.contains("H945.0V258.0Z") && !svg.contains("H959"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}

//! Results of a benchmark: measures with their targets, as a table for people and as JSON for later
//! comparison. Pure functions.

use super::machine::{Build, Machine};
use super::targets::{MeasureSpec, Unit};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Version of the JSON format; increased when a key changes its meaning or is removed.
const SCHEMA: u32 = 2;
/// Multiple of a target above which `--check` fails: a shared machine may be slow, but a defective
/// component is slower.
pub const CHECK_FACTOR: f64 = 3.0;
/// Titles of the table's columns.
const COLUMN_TITLES: [&str; 5] =
    ["measure", "measured", "target", "verdict", "others, measured earlier on this lab"];

/// Value of the same measure for another product, in the measure's unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtherProduct {
    pub name: &'static str,
    pub value: f64,
}

/// One value of this run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measure {
    pub id: &'static str,
    pub what: &'static str,
    pub unit: Unit,
    pub value: f64,
    pub target: Option<f64>,
    /// True if the value is within its target; `None` without a target.
    pub within: Option<bool>,
    /// Values that were measured earlier on the same lab, not in this run.
    pub others: Vec<OtherProduct>,
}

impl Measure {
    pub fn new(spec: &MeasureSpec, value: f64) -> Self {
        Self {
            id: spec.id,
            what: spec.what,
            unit: spec.unit,
            value,
            target: spec.target,
            within: spec.target.map(|target| value <= target),
            others: spec
                .peers
                .iter()
                .map(|(name, value)| OtherProduct { name, value: *value })
                .collect(),
        }
    }
}

/// A result that is not a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remark {
    pub id: &'static str,
    pub what: &'static str,
    pub text: String,
}

/// Results of one or several benchmarks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    pub measures: Vec<Measure>,
    /// Raw samples in the order of measurement, in the unit of their measures. The key is the
    /// common prefix of the measures' ids.
    pub samples: BTreeMap<String, Vec<f64>>,
    pub remarks: Vec<Remark>,
}

impl Findings {
    pub fn add(&mut self, spec: &MeasureSpec, value: f64) {
        self.measures.push(Measure::new(spec, value));
    }

    pub fn keep_samples(&mut self, name: &str, samples: Vec<f64>) {
        self.samples.insert(name.to_owned(), samples);
    }

    pub fn extend(&mut self, others: Self) {
        self.measures.extend(others.measures);
        self.samples.extend(others.samples);
        self.remarks.extend(others.remarks);
    }

    /// Returns the measures that are above `factor` times their targets.
    pub fn above_target(&self, factor: f64) -> Vec<&Measure> {
        let is_above = |measure: &&Measure| {
            measure.target.is_some_and(|target| measure.value > target * factor)
        };
        self.measures.iter().filter(is_above).collect()
    }
}

/// Report of a whole run.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    schema: u32,
    pub machine: Machine,
    pub build: Build,
    #[serde(flatten)]
    pub findings: Findings,
}

impl BenchReport {
    pub fn new(machine: Machine, build: Build, findings: Findings) -> Self {
        Self { schema: SCHEMA, machine, build, findings }
    }

    /// Returns the table for people, below the description of machine and build.
    pub fn table(&self) -> String {
        let (measures, remarks) = (table(&self.findings.measures), remarks(&self.findings.remarks));
        format!("{}\n{}\n\n{measures}{remarks}", self.machine, self.build)
    }
}

fn table(measures: &[Measure]) -> String {
    let mut rows = vec![COLUMN_TITLES.map(str::to_owned)];
    rows.extend(measures.iter().map(row));
    let widths: Vec<usize> = (0..COLUMN_TITLES.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Numbers are right-aligned, words are left-aligned.
            let _ = match column {
                1 | 2 => write!(line, "{cell:>width$}  "),
                _ => write!(line, "{cell:<width$}  "),
            };
        }
        table += line.trim_end();
        table.push('\n');
    }
    table
}

/// Formats the remarks, below the table.
fn remarks(remarks: &[Remark]) -> String {
    let width = remarks.iter().map(|remark| remark.what.chars().count()).max().unwrap_or(0);
    let lines = remarks.iter().map(|remark| format!("{:<width$}  {}\n", remark.what, remark.text));
    if remarks.is_empty() { String::new() } else { format!("\n{}", lines.collect::<String>()) }
}

fn row(measure: &Measure) -> [String; 5] {
    let formatted = |value: f64| format_value(value, measure.unit);
    let verdict = match measure.within {
        Some(true) => "within",
        Some(false) => "OVER",
        None => "",
    };
    let others: Vec<String> = measure
        .others
        .iter()
        .map(|product| format!("{} {}", product.name, formatted(product.value)))
        .collect();
    [
        measure.what.to_owned(),
        formatted(measure.value),
        measure.target.map(formatted).unwrap_or_default(),
        verdict.to_owned(),
        others.join(", "),
    ]
}

/// Formats a value with its unit, in about three digits.
pub fn format_value(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Microseconds if value >= 1000.0 => format_value(value / 1000.0, Unit::Milliseconds),
        Unit::Microseconds => format!("{value:.0} us"),
        Unit::Milliseconds if value >= 1000.0 => format!("{:.1} s", value / 1000.0),
        Unit::Milliseconds if value >= 10.0 => format!("{value:.0} ms"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Kilobytes => format!("{value:.0} kB"),
        Unit::Megabytes => format!("{value:.1} MB"),
        Unit::Times => format!("{value:.2}x"),
        Unit::Count => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::targets;
    use super::*;

    #[test]
    fn values_are_formatted_with_their_units() {
        for (value, unit, expect) in [
            (32.4, Unit::Microseconds, "32 us"),
            (1240.0, Unit::Microseconds, "1.2 ms"),
            (4.26, Unit::Milliseconds, "4.3 ms"),
            (286.0, Unit::Milliseconds, "286 ms"),
            (5900.0, Unit::Milliseconds, "5.9 s"),
            (286.4, Unit::Kilobytes, "286 kB"),
            (11.96, Unit::Megabytes, "12.0 MB"),
            (1.834, Unit::Times, "1.83x"),
            (2.0, Unit::Count, "2"),
        ] {
            assert_eq!(format_value(value, unit), expect);
        }
    }

    #[test]
    fn a_value_equal_to_its_target_is_within() {
        for (spec, value, within) in [
            (&targets::FAILOVER_NODE_FAILURE[0].median, 300.0, Some(true)),
            (&targets::FAILOVER_NODE_FAILURE[0].median, 300.1, Some(false)),
            (&targets::FAILOVER_NODE_FAILURE[0].worst, 9000.0, None),
        ] {
            assert_eq!(Measure::new(spec, value).within, within, "{value}");
        }
    }

    #[test]
    fn a_check_fails_only_above_its_factor() {
        for (value, count) in [(299.0, 0), (301.0, 0), (900.0, 0), (901.0, 1)] {
            let mut findings = Findings::default();
            findings.add(&targets::FAILOVER_NODE_FAILURE[0].median, value);
            findings.add(&targets::FAILOVER_NODE_FAILURE[0].worst, 5000.0);
            assert_eq!(findings.above_target(CHECK_FACTOR).len(), count, "{value}");
        }
        for (writes, count) in [(0.0, 0), (1.0, 1)] {
            let mut findings = Findings::default();
            findings.add(&targets::RESTART_WRITES, writes);
            assert_eq!(findings.above_target(CHECK_FACTOR).len(), count, "{writes} writes");
        }
    }

    #[test]
    fn the_table_is_aligned_and_names_other_products() {
        let mut findings = Findings::default();
        findings.add(&targets::REPLIES_1[0].ratio[0], 1.5);
        findings.add(&targets::REPLIES_1[0].kernel[0], 30.0);
        findings.add(&targets::REPLIES_1[0].ratio[1], 2.0);
        let expect = "\
measure                            measured  target  verdict  others, measured earlier on this lab
ARP, broadcast: ratio, p50            1.50x   1.80x  within   MetalLB 2.30x
ARP, broadcast: kernel's own, p50     30 us
ARP, broadcast: ratio, p99            2.00x   1.60x  OVER     MetalLB 1.80x
";
        assert_eq!(table(&findings.measures), expect);
    }

    #[test]
    fn remarks_follow_the_table_and_are_omitted_if_empty() {
        let remark = |what, text: &str| Remark { id: "x", what, text: text.to_owned() };
        assert_eq!(
            remarks(&[remark("long words", "yes"), remark("short", "no")]),
            "\nlong words  yes\nshort       no\n"
        );
        assert_eq!(remarks(&[]), "");
    }

    #[test]
    fn json_keys_are_stable() {
        let mut findings = Findings::default();
        findings.add(&targets::CONTROLLER_1.rss, 10.5);
        findings.keep_samples("memory.controller.rss.1", vec![10.5]);
        findings.remarks.push(Remark {
            id: "failover.fate",
            what: "one connection",
            text: "reset".to_owned(),
        });
        let expect = serde_json::json!({
            "measures": [{
                "id": "memory.controller.rss.1", "what": "controller, 1 Service: resident", "unit": "MB", "value": 10.5,
                "target": 12.0, "within": true, "others": [{"name": "MetalLB", "value": 61.0}],
            }],
            "samples": {"memory.controller.rss.1": [10.5]},
            "remarks": [{"id": "failover.fate", "what": "one connection", "text": "reset"}],
        });
        assert_eq!(serde_json::to_value(&findings).unwrap(), expect);
    }
}

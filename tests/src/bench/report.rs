//! What a benchmark found: measures beside their budgets, as a table for people and as JSON for later comparison. Pure.

use super::budgets::{Known, Unit};
use super::machine::{Build, Machine};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The shape of the JSON: raised when a key changes its meaning or goes.
const SCHEMA: u32 = 1;
/// A check allows this many budgets: a shared machine may be slow, but a broken program is slower.
pub const CHECK_FACTOR: f64 = 3.0;
/// The columns of the table.
const HEAD: [&str; 5] = ["measure", "measured", "budget", "verdict", "others, measured earlier on this lab"];

/// Another product's figure, in the measure's unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peer {
    pub name: &'static str,
    pub value: f64,
}

/// One figure of this run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measure {
    pub id: &'static str,
    pub what: &'static str,
    pub unit: Unit,
    pub value: f64,
    pub budget: Option<f64>,
    /// Whether the value is within its budget; none where there is none.
    pub within: Option<bool>,
    /// Measured earlier on the same lab, not in this run.
    pub others: Vec<Peer>,
}

impl Measure {
    pub fn new(known: &Known, value: f64) -> Self {
        Self {
            id: known.id,
            what: known.what,
            unit: known.unit,
            value,
            budget: known.budget,
            within: known.budget.map(|budget| value <= budget),
            others: known.peers.iter().map(|(name, value)| Peer { name, value: *value }).collect(),
        }
    }
}

/// What has no figure of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Remark {
    pub id: &'static str,
    pub what: &'static str,
    pub said: String,
}

/// What one or several benchmarks found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    pub measures: Vec<Measure>,
    /// The raw samples by the first words of the measures' ids, in the measures' units, in the order in which they were taken.
    pub samples: BTreeMap<String, Vec<f64>>,
    pub remarks: Vec<Remark>,
}

impl Findings {
    pub fn add(&mut self, known: &Known, value: f64) {
        self.measures.push(Measure::new(known, value));
    }

    pub fn keep(&mut self, name: &str, samples: Vec<f64>) {
        self.samples.insert(name.to_owned(), samples);
    }

    pub fn extend(&mut self, others: Self) {
        self.measures.extend(others.measures);
        self.samples.extend(others.samples);
        self.remarks.extend(others.remarks);
    }

    /// The measures that are beyond `factor` times their budgets.
    pub fn beyond(&self, factor: f64) -> Vec<&Measure> {
        let beyond = |measure: &&Measure| measure.budget.is_some_and(|budget| measure.value > budget * factor);
        self.measures.iter().filter(beyond).collect()
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    pub machine: Machine,
    pub build: Build,
    #[serde(flatten)]
    pub findings: Findings,
}

impl Report {
    pub fn new(machine: Machine, build: Build, findings: Findings) -> Self {
        Self { schema: SCHEMA, machine, build, findings }
    }

    /// The table that a person reads, with what was measured and where above it.
    pub fn table(&self) -> String {
        let (measures, remarks) = (table(&self.findings.measures), remarks(&self.findings.remarks));
        format!("{}\n{}\n\n{measures}{remarks}", self.machine, self.build)
    }
}

fn table(measures: &[Measure]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(measures.iter().map(row));
    let widths: Vec<usize> =
        (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Figures end in the same column, words begin in the same.
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

/// The remarks, below the table.
fn remarks(remarks: &[Remark]) -> String {
    let width = remarks.iter().map(|remark| remark.what.chars().count()).max().unwrap_or(0);
    let lines = remarks.iter().map(|remark| format!("{:<width$}  {}\n", remark.what, remark.said));
    if remarks.is_empty() { String::new() } else { format!("\n{}", lines.collect::<String>()) }
}

fn row(measure: &Measure) -> [String; 5] {
    let said = |value: f64| spoken(value, measure.unit);
    let verdict = match measure.within {
        Some(true) => "within",
        Some(false) => "OVER",
        None => "",
    };
    let others: Vec<String> = measure.others.iter().map(|peer| format!("{} {}", peer.name, said(peer.value))).collect();
    [
        measure.what.to_owned(),
        said(measure.value),
        measure.budget.map(said).unwrap_or_default(),
        verdict.to_owned(),
        others.join(", "),
    ]
}

/// A value as a person says it, in three digits or so.
pub fn spoken(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Nanoseconds => format!("{value:.0} ns"),
        Unit::Microseconds if value >= 1000.0 => spoken(value / 1000.0, Unit::Milliseconds),
        Unit::Microseconds => format!("{value:.0} us"),
        Unit::Milliseconds if value >= 1000.0 => format!("{:.1} s", value / 1000.0),
        Unit::Milliseconds if value >= 10.0 => format!("{value:.0} ms"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Megabytes => format!("{value:.1} MB"),
        Unit::Times => format!("{value:.2}x"),
        Unit::Count => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::budgets;
    use super::*;

    #[test]
    fn values_are_said_in_their_units() {
        for (value, unit, expect) in [
            (32.4, Unit::Microseconds, "32 us"),
            (1240.0, Unit::Microseconds, "1.2 ms"),
            (4.26, Unit::Milliseconds, "4.3 ms"),
            (286.0, Unit::Milliseconds, "286 ms"),
            (5900.0, Unit::Milliseconds, "5.9 s"),
            (11.96, Unit::Megabytes, "12.0 MB"),
            (1.834, Unit::Times, "1.83x"),
            (740.6, Unit::Nanoseconds, "741 ns"),
            (2.0, Unit::Count, "2"),
        ] {
            assert_eq!(spoken(value, unit), expect);
        }
    }

    #[test]
    fn a_verdict_needs_a_budget_and_the_budget_itself_is_within() {
        for (known, value, within) in [
            (&budgets::FAILOVER_DIES[0].median, 300.0, Some(true)),
            (&budgets::FAILOVER_DIES[0].median, 300.1, Some(false)),
            (&budgets::FAILOVER_DIES[0].worst, 9000.0, None),
        ] {
            assert_eq!(Measure::new(known, value).within, within, "{value}");
        }
    }

    #[test]
    fn a_check_fails_only_beyond_its_factor() {
        for (value, beyond) in [(299.0, 0), (301.0, 0), (900.0, 0), (901.0, 1)] {
            let mut findings = Findings::default();
            findings.add(&budgets::FAILOVER_DIES[0].median, value);
            findings.add(&budgets::FAILOVER_DIES[0].worst, 5000.0);
            assert_eq!(findings.beyond(CHECK_FACTOR).len(), beyond, "{value}");
        }
        for (writes, beyond) in [(0.0, 0), (1.0, 1)] {
            let mut findings = Findings::default();
            findings.add(&budgets::RESTART_WRITES, writes);
            assert_eq!(findings.beyond(CHECK_FACTOR).len(), beyond, "{writes} writes");
        }
    }

    #[test]
    fn the_table_is_aligned_and_names_the_others() {
        let mut findings = Findings::default();
        findings.add(&budgets::ANSWERED_1[0].ratio[0], 1.5);
        findings.add(&budgets::ANSWERED_1[0].kernel[0], 30.0);
        findings.add(&budgets::ANSWERED_1[0].ratio[1], 2.0);
        let expect = "\
measure                               measured  budget  verdict  others, measured earlier on this lab
ARP, asked of all: ratio, p50            1.50x   1.80x  within   MetalLB 2.30x
ARP, asked of all: kernel's own, p50     30 us
ARP, asked of all: ratio, p99            2.00x   1.60x  OVER     MetalLB 1.80x
";
        assert_eq!(table(&findings.measures), expect);
    }

    #[test]
    fn remarks_stand_below_the_table_and_leave_no_trace_where_there_are_none() {
        let remark = |what, said: &str| Remark { id: "x", what, said: said.to_owned() };
        assert_eq!(
            remarks(&[remark("long words", "yes"), remark("short", "no")]),
            "\nlong words  yes\nshort       no\n"
        );
        assert_eq!(remarks(&[]), "");
    }

    #[test]
    fn the_keys_of_the_json_are_these() {
        let mut findings = Findings::default();
        findings.add(&budgets::CONTROLLER_1.rss, 10.5);
        findings.keep("memory.controller.rss.1", vec![10.5]);
        findings.remarks.push(Remark { id: "failover.fate", what: "one connection", said: "reset".to_owned() });
        let expect = serde_json::json!({
            "measures": [{
                "id": "memory.controller.rss.1", "what": "controller, 1 Service: resident", "unit": "MB", "value": 10.5,
                "budget": 12.0, "within": true, "others": [{"name": "MetalLB", "value": 61.0}],
            }],
            "samples": {"memory.controller.rss.1": [10.5]},
            "remarks": [{"id": "failover.fate", "what": "one connection", "said": "reset"}],
        });
        assert_eq!(serde_json::to_value(&findings).unwrap(), expect);
    }
}

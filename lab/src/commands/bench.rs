//! `cargo lab bench`: runs benchmarks, prints the table, and writes the JSON for a later
//! comparison.

use super::up::{KUBEADM_STEPS, PREPARE_STEPS, ROUTER_STEPS, prepare, prepare_kubeadm};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use ferrolb_lab::Options;
use ferrolb_lab::bench::failover::{self, FailoverRow};
use ferrolb_lab::bench::machine::{Build, Machine};
use ferrolb_lab::bench::report::{BenchReport, CHECK_FACTOR, Findings};
use ferrolb_lab::bench::{self, Bench, BenchExtent, bgp_failover, busy, power_off};
use ferrolb_lab::setup::Tools;
use ferrolb_lab::setup::images::{self, Arch};
use ferrolb_lab::setup::kubernetes::KubernetesVersion;
use ferrolb_lab::setup::programs::{self, LabPrograms, StaticPrograms};
use ferrolb_lab::steps::Steps;
use ferrolb_lab::topology::LabName;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Default name of the lab of a benchmark.
const DEFAULT_NAME: &str = "bench";
/// File name that selects the standard output.
const STANDARD_OUTPUT: &str = "-";

// Measured durations on two cores; shown as usual times of the steps.
const BENCH_USUAL_TIME: Duration = Duration::from_secs(30);
const ANSWERS_USUAL_TIME: Duration = Duration::from_secs(320);
const SCALE_USUAL_TIME: Duration = Duration::from_secs(180);
const LARGE_USUAL_TIME: Duration = Duration::from_secs(660);
const HEALTH_USUAL_TIME: Duration = Duration::from_secs(400);
const BGP_USUAL_TIME: Duration = Duration::from_secs(200);
const RELEASE_USUAL_TIME: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Benchmarks to run; default: all.
    #[arg(value_enum)]
    names: Vec<Bench>,
    /// Write the values and their samples as JSON to FILE; `-` selects the standard output, in
    /// place of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the plot of power-off as SVG to FILE.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Runs per row of failover, bgp-failover and power-off; published results of the first two use
    /// 10.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Run only this row of failover; can be repeated.
    #[arg(long = "row", value_enum, value_name = "ROW")]
    rows: Vec<FailoverRow>,
    /// Measure with 1,000 Services too.
    #[arg(long)]
    thousand: bool,
    /// Build and measure the programs of the images, which the memory targets refer to, instead of
    /// those of the lab profile.
    #[arg(long)]
    release: bool,
    /// Fail if a measure is above three times its target.
    #[arg(long)]
    check: bool,
}

/// Runs the benchmarks one after another, each in a fresh lab.
pub(crate) fn bench(name: Option<LabName>, args: &BenchArgs) -> Result<()> {
    let name = name.map_or_else(|| DEFAULT_NAME.parse(), Ok)?;
    let benches = if args.names.is_empty() { Bench::value_variants() } else { &args.names };
    let routers = benches.iter().any(|bench| bench.has_routers());
    let kubelets = benches.iter().any(|bench| bench.has_kubelets());
    ensure!(
        args.svg.is_none() || kubelets,
        "--svg is for power-off: cargo lab bench power-off --svg FILE"
    );
    let prepared = PREPARE_STEPS
        + if routers { ROUTER_STEPS } else { 0 }
        + if kubelets { KUBEADM_STEPS } else { 0 };
    let mut steps = Steps::new(prepared + benches.len() + usize::from(args.release));
    let mut tools = tools(&mut steps, args.release, routers)?;
    if kubelets {
        tools.kubeadm = Some(prepare_kubeadm(&mut steps)?);
    }
    let options = Options::named(&name.to_string());
    let profile = if args.release { "release" } else { "lab" };
    let proxy_mode =
        options.proxy_mode.clone().filter(|_| benches.iter().any(|bench| bench.has_kube_proxies()));
    let (machine, build) = (Machine::inspect()?, Build::inspect(profile, proxy_mode)?);
    let rows = if args.rows.is_empty() { FailoverRow::value_variants() } else { &args.rows };
    let extent = BenchExtent { runs: args.runs.into(), rows: rows.into(), thousand: args.thousand };
    let mut findings = Findings::default();
    for bench in benches {
        let title = format!("Measure: {}", format!("{bench:?}").to_lowercase());
        findings.extend(steps.step(&title, usual_duration(*bench, &extent), || {
            bench::run(*bench, &tools, &options, &extent)
        })?);
    }
    let report = BenchReport::new(machine, build, findings);
    print(&report, args.json.as_deref())?;
    if let (Some(file), Some(svg)) = (&args.svg, power_off::svg_plot(&report.findings)) {
        fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if args.check { check(&report.findings) } else { Ok(()) }
}

fn tools(steps: &mut Steps, release: bool, routers: bool) -> Result<Tools> {
    let tools = prepare(steps, routers, KubernetesVersion::Newest)?;
    if !release {
        return Ok(tools);
    }
    let built = steps.step("Build the programs of FerroLB's images", RELEASE_USUAL_TIME, || {
        images::prepare(Arch::own())?;
        programs::build_static("release", Arch::own().target())
    })?;
    let StaticPrograms { controller, speaker } = built;
    let programs = LabPrograms { controller, speaker, ..tools.programs };
    Ok(Tools { programs, ..tools })
}

fn usual_duration(bench: Bench, extent: &BenchExtent) -> Duration {
    match bench {
        Bench::Create | Bench::Memory => BENCH_USUAL_TIME,
        Bench::Answers => ANSWERS_USUAL_TIME,
        Bench::Scale => SCALE_USUAL_TIME,
        Bench::Large => LARGE_USUAL_TIME,
        Bench::Health => HEALTH_USUAL_TIME,
        Bench::Bgp => BGP_USUAL_TIME,
        Bench::BgpFailover => bgp_failover::usual_duration(extent.runs),
        Bench::Failover => failover::usual_duration(extent.runs, &extent.rows),
        Bench::PowerOff => power_off::usual_duration(extent.runs),
        Bench::Busy => busy::usual_duration(),
    }
}

fn print(report: &BenchReport, json: Option<&Path>) -> Result<()> {
    let text = serde_json::to_string_pretty(report)?;
    match json {
        Some(file) if file.as_os_str() == STANDARD_OUTPUT => println!("{text}"),
        Some(file) => {
            fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{}", report.table());
        }
        None => println!("{}", report.table()),
    }
    Ok(())
}

fn check(findings: &Findings) -> Result<()> {
    let above_limit: Vec<&str> =
        findings.above_target(CHECK_FACTOR).iter().map(|measure| measure.id).collect();
    if !above_limit.is_empty() {
        bail!("above {CHECK_FACTOR} times the target: {}", above_limit.join(", "));
    }
    Ok(())
}

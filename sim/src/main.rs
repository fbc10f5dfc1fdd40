//! `cargo sim`: runs scenarios of the layer 2 simulator with many seeds and prints a table, or
//! prints every event of one run.

use clap::{Parser, Subcommand};
use ferrolb_sim::node_failure::{self, FaultKind, table};
use ferrolb_sim::report::{self, Row};
use ferrolb_sim::{Defect, Run, Scenario, scenario};
use std::process::ExitCode;
use std::time::Instant;

/// Name that selects every scenario.
const ALL: &str = "all";

/// Simulates layer 2: the claim machines of many nodes on one network segment, with faults.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Scenarios to run; `list` prints their names and descriptions.
    #[arg(value_delimiter = ',', default_value = ALL)]
    scenarios: Vec<String>,
    /// Number of runs of each scenario.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Number of nodes on the network segment.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=2048))]
    nodes: u16,
    /// Number of election units.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    units: u16,
    /// Print every event; requires one seed.
    #[arg(long)]
    trace: bool,
    /// Add this defect to every node's claim machine, to verify that the checker detects it.
    #[arg(long, value_enum)]
    broken: Option<Defect>,
    /// Number of parallel runs; default: the number of processors.
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Simulates node failure: the machines of all speakers and of the controller, with faults.
    NodeFailure(NodeFailureArgs),
}

#[derive(Parser)]
struct NodeFailureArgs {
    /// Fault of all runs; `several` for random ones. Default: the seed selects the fault, and half
    /// of the runs have several.
    fault: Option<String>,
    /// Number of runs.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Number of nodes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(4..=4096))]
    nodes: u16,
    /// Print every event; requires one seed.
    #[arg(long)]
    trace: bool,
    /// Add this defect, to verify that the checker detects it.
    #[arg(long, value_enum)]
    broken: Option<node_failure::Defect>,
    /// Number of parallel runs; default: the number of processors.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Some(Command::NodeFailure(args)) => simulate_node_failure(args),
        None => sim(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the simulator.
///
/// # Errors
/// If an argument is invalid, or a run violates a rule.
#[expect(
    clippy::disallowed_methods,
    reason = "prints how long the runs took; no run reads a clock"
)]
fn sim(args: &Args) -> Result<(), String> {
    if args.scenarios == ["list"] {
        for scenario in scenario::all() {
            println!("{:<14} {}", scenario.name, scenario.description);
        }
        return Ok(());
    }
    if args.trace && args.seeds != 1 {
        return Err("--trace prints one run: add --seeds 1 --start SEED".to_owned());
    }
    let begin = Instant::now();
    let (mut violations, mut count) = (0, 0);
    println!("{} nodes, {} units; times in ms\n{}", args.nodes, args.units, report::head());
    for scenario in selected_scenarios(&args.scenarios)? {
        let runs = runs(args, scenario);
        let jobs = if args.trace { 1 } else { args.jobs.unwrap_or_else(report::processors) };
        let outcomes = report::execute_all(&runs, jobs);
        let row = Row { runs: &runs, outcomes: &outcomes };
        println!("{}", row.line());
        print!("{}", row.violations_text());
        violations += row.violations().count();
        count += runs.len();
    }
    println!("{count} runs in {:.1} s", begin.elapsed().as_secs_f64());
    if violations > 0 { Err(format!("{violations} violations of rules")) } else { Ok(()) }
}

fn selected_scenarios(names: &[String]) -> Result<Vec<&'static Scenario>, String> {
    if names.iter().any(|name| name == ALL) {
        return Ok(scenario::all().collect());
    }
    let find = |name: &String| {
        let found = scenario::all().find(|scenario| scenario.name == name);
        found.ok_or_else(|| format!("no scenario {name}: `cargo sim list` prints their names"))
    };
    names.iter().map(find).collect()
}

fn runs(args: &Args, scenario: &'static Scenario) -> Vec<Run> {
    let run = |seed| Run {
        scenario,
        seed,
        nodes: args.nodes.into(),
        units: args.units.into(),
        defect: args.broken,
        trace: args.trace,
    };
    (args.start..args.start + args.seeds).map(run).collect()
}

/// Runs the simulation of node failure.
///
/// # Errors
/// If an argument is invalid, or a run violates a rule.
#[expect(
    clippy::disallowed_methods,
    reason = "prints how long the runs took; no run reads a clock"
)]
fn simulate_node_failure(args: &NodeFailureArgs) -> Result<(), String> {
    if args.trace && args.seeds != 1 {
        return Err("--trace prints one run: add --seeds 1 --start SEED".to_owned());
    }
    let find = |name: &String| {
        let found = FaultKind::ALL.into_iter().find(|kind| kind.name() == name);
        let names: Vec<_> = FaultKind::ALL.into_iter().map(FaultKind::name).collect();
        let error = || format!("no fault {name}: use several, {}", names.join(", "));
        if name == "several" { Ok(None) } else { found.map(Some).ok_or_else(error) }
    };
    let fault = args.fault.as_ref().map(find).transpose()?;
    let run = |seed| {
        let of_seed = node_failure::Run::of_seed(seed, args.nodes.into());
        let fault = fault.unwrap_or(of_seed.fault);
        node_failure::Run { fault, defect: args.broken, trace: args.trace, ..of_seed }
    };
    let runs: Vec<_> = (args.start..args.start + args.seeds).map(run).collect();
    let begin = Instant::now();
    let jobs = if args.trace { 1 } else { args.jobs.unwrap_or_else(report::processors) };
    let outcomes = report::execute_each(&runs, jobs, node_failure::Run::execute);
    println!("{} nodes; times in ms\n{}", args.nodes, table::head());
    for row in table::rows(&runs, &outcomes) {
        println!("{row}");
    }
    print!("{}", table::violations_text(&runs, &outcomes));
    print!("{}", table::false_marks_text(&runs, &outcomes));
    println!("{} runs in {:.1} s", runs.len(), begin.elapsed().as_secs_f64());
    let violations = table::violations(&outcomes);
    if violations > 0 { Err(format!("{violations} violations of rules")) } else { Ok(()) }
}

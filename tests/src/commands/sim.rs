//! `cargo lab sim`: many seeded runs of the layer 2 simulator as a table beside the model's figures; or one of them as a story.

use anyhow::{Result, bail};
use clap::Args;
use ferrolb_tests::sim::report::{self, Row};
use ferrolb_tests::sim::{Broken, Run, Scenario, scenario};
use ferrolb_tests::steps::spoken;
use ferrolb_tests::wait;

/// What stands for every scenario.
const ALL: &str = "all";

#[derive(Args)]
pub(crate) struct SimArgs {
    /// Which; all of them without a name. `list` says what each does.
    #[arg(value_delimiter = ',', default_value = ALL)]
    scenarios: Vec<String>,
    /// How many runs of each scenario.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// How many nodes are on the wire.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=2048))]
    nodes: u16,
    /// How many units there are to own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    units: u16,
    /// Print everything that happens; for one seed.
    #[arg(long)]
    trace: bool,
    /// Break every machine on purpose, to see that the checker notices.
    #[arg(long, value_enum)]
    broken: Option<Broken>,
    /// Runs at a time; as many as there are processors without it.
    #[arg(long)]
    jobs: Option<usize>,
}

/// Runs the simulator; an error if a rule was broken.
pub(crate) fn sim(args: &SimArgs) -> Result<()> {
    if args.scenarios == ["list"] {
        for scenario in &scenario::ALL {
            println!("{:<14} {}", scenario.name, scenario.what);
        }
        return Ok(());
    }
    if args.trace && args.seeds != 1 {
        bail!("--trace tells one run: add --seeds 1 --start SEED");
    }
    let begin = wait::now();
    let (mut broken, mut count) = (0, 0);
    println!("{} nodes, {} units; times in ms\n{}", args.nodes, args.units, report::head());
    for scenario in chosen(&args.scenarios)? {
        let runs = runs(args, scenario);
        let jobs = if args.trace { 1 } else { args.jobs.unwrap_or_else(report::processors) };
        let outcomes = report::go(&runs, jobs);
        let row = Row { runs: &runs, outcomes: &outcomes };
        println!("{}", row.line());
        print!("{}", row.complaint());
        broken += row.broken().count();
        count += runs.len();
    }
    println!("{count} runs in {}", spoken(wait::now() - begin));
    if broken > 0 { bail!("rules were broken {broken} times") } else { Ok(()) }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.iter().any(|name| name == ALL) {
        return Ok(scenario::ALL.iter().collect());
    }
    let find = |name: &String| match scenario::ALL.iter().find(|scenario| scenario.name == name) {
        Some(scenario) => Ok(scenario),
        None => bail!("no scenario {name}: `cargo lab sim list` names them"),
    };
    names.iter().map(find).collect()
}

fn runs(args: &SimArgs, scenario: &'static Scenario) -> Vec<Run> {
    let run = |seed| Run {
        scenario,
        seed,
        nodes: args.nodes.into(),
        units: args.units.into(),
        broken: args.broken,
        trace: args.trace,
    };
    (args.start..args.start + args.seeds).map(run).collect()
}

//! The commands for Helm in the plans of `kubectl ferrolb migrate` render the chart: its schema
//! accepts all values, and the components get them as flags.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::run::run;
use ferrolb_lab::setup::{installers, repository};
use std::collections::BTreeSet;
use std::fs;

/// Directory with the plans of the unit tests.
const PLANS: &str = "cli/src/migrate/fixtures";
/// Commands that create or change the installation.
const COMMANDS: [&str; 2] = ["helm upgrade --install ", "helm upgrade "];
/// Options of these commands that `helm template` does not have.
const OPTIONS: [&str; 4] =
    [" --wait", " --timeout 30m", " --create-namespace", " --reset-then-reuse-values"];
/// Values of the chart in the plans, and parts of the rendered objects.
const EFFECTS: [(&str, &str); 4] = [
    ("metallbNamespace=metallb-system", "metallb-system"),
    ("prometheus.metricsPort=7476", "7476"),
    ("bgp.enabled=true", "gobgpd"),
    ("loadBalancerClass=ferrolb.io/ferrolb", "ferrolb.io/ferrolb"),
];

fn commands() -> Result<BTreeSet<String>> {
    let mut commands = BTreeSet::new();
    for file in fs::read_dir(repository().join(PLANS))? {
        let text = fs::read_to_string(file?.path())?;
        let lines = text.lines().map(str::trim).map(ToOwned::to_owned);
        commands.extend(lines.filter(|it| COMMANDS.iter().any(|start| it.starts_with(start))));
    }
    Ok(commands)
}

fn render(command: &str) -> Result<String> {
    let mut template = command.to_owned();
    for start in COMMANDS {
        template = template.replacen(start, "helm template ", 1);
    }
    for option in OPTIONS {
        template = template.replace(option, "");
    }
    let mut shell = installers::command_with("sh", &[installers::helm()?])?;
    run(shell.current_dir(repository()).args(["-euc", &template]))
        .with_context(|| format!("{command} fails"))
}

#[test]
fn the_chart_accepts_the_commands_of_every_migration_plan() -> Result<()> {
    let mut without: BTreeSet<_> = EFFECTS.iter().map(|(value, _)| *value).collect();
    for command in commands()? {
        let objects = render(&command)?;
        for (value, part) in EFFECTS.iter().filter(|(value, _)| command.contains(value)) {
            ensure!(objects.contains(part), "{command}: {value} has no effect");
            without.remove(value);
        }
    }
    ensure!(without.is_empty(), "no plan has these values: {without:?}");
    Ok(())
}

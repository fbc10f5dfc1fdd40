//! Command line of `kubectl ferrolb`. `main` reads it once.

use std::path::PathBuf;

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ferrolb_proto::api::NAMESPACE;

use crate::init::propose::Request;
use crate::install::run::InstallRequest;
use crate::migrate;

/// Installs FerroLB, explains, checks and plans its addresses, and plans migrations to it.
#[derive(Parser, Debug)]
#[command(name = "kubectl-ferrolb", bin_name = "kubectl ferrolb", version, after_help = HELP)]
pub struct Args {
    /// The cluster.
    #[command(flatten)]
    pub connection: Connection,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The cluster, and the installation in it.
#[derive(clap::Args, Debug)]
pub struct Connection {
    /// Namespace of FerroLB
    #[arg(long, global = true, value_name = "NAMESPACE", default_value = NAMESPACE)]
    pub installation: String,

    /// Context of the kubeconfig file; default: the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Path of the kubeconfig file; default: the one that kubectl uses
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show speakers, pools, and all Services with their addresses, nodes and reasons
    #[command(after_help = STATUS_HELP)]
    Status {
        /// Show the status every two seconds, until Ctrl+C
        #[arg(long, short)]
        watch: bool,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<Output>,
    },
    /// Explain a Service: the nodes that announce each address, and the reasons of all others
    #[command(after_help = WHY_HELP)]
    Why {
        /// Name of the Service, NAMESPACE/NAME, or svc/NAME
        #[arg(value_name = "SERVICE")]
        service: String,
        /// Namespace of the Service; default: the one of the context
        #[arg(long, short)]
        namespace: Option<String>,
        /// Exit with 1 also if the Service is announced with a warning
        #[arg(long)]
        strict: bool,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<JsonOutput>,
    },
    /// Predict the effect of manifests: addresses, owners and routes that change
    #[command(after_help = PLAN_HELP)]
    #[command(group = ArgGroup::new("manifests").required(true).multiple(true)
        .args(["files", "kustomize", "delete"]))]
    Plan {
        /// Files to apply, as in kubectl apply -f; - is standard input
        #[arg(long = "filename", short = 'f', value_name = "FILE", num_args = 1..)]
        files: Vec<PathBuf>,
        /// Directory of a kustomization to apply, as in kubectl apply -k
        #[arg(long, short, value_name = "DIRECTORY")]
        kustomize: Option<PathBuf>,
        /// Files whose objects are deleted after the files are applied, as in kubectl delete -f
        #[arg(long, value_name = "FILE", num_args = 1..)]
        delete: Vec<PathBuf>,
        /// Exit with code 1 if the manifests have this effect
        #[arg(long, value_enum, value_name = "EFFECT")]
        fail_on: Option<FailOn>,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<JsonOutput>,
    },
    /// Predict the effect of an announcement drain of a node
    #[command(after_help = DRAIN_HELP)]
    Drain {
        /// Name of the Node
        node: String,
        /// Predict the effect, and start no drain; required
        #[arg(long, required = true)]
        dry_run: bool,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<JsonOutput>,
    },
    /// Plan the migration from another load balancer, and write FerroLB's objects
    #[command(subcommand, after_help = migrate::args::HELP)]
    Migrate(migrate::args::Source),
    /// Check the cluster and FerroLB: each finding has a code and the next command or change
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Check the cluster before an installation
        #[arg(long)]
        pre: bool,
        /// Exit with code 1 also for warnings
        #[arg(long)]
        strict: bool,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<CheckOutput>,
    },
    /// Propose a first pool in the subnet of the nodes, and apply it after a confirmation
    #[command(after_help = INIT_HELP)]
    Init(Request),
    /// Install FerroLB or upgrade it: check, apply, wait until the pods are ready, then init
    #[command(after_help = INSTALL_HELP)]
    Install(InstallRequest),
    /// Print a script for the completion of commands in a shell
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// The shell
        shell: Shell,
    },
}

const HELP: &str = concat!(
    "Examples:
  kubectl ferrolb check
  kubectl ferrolb why web
  kubectl ferrolb plan -f pools.yaml

Documentation: https://github.com/ferrolb/ferrolb/blob/v",
    env!("CARGO_PKG_VERSION"),
    "/docs/cli.md"
);

const STATUS_HELP: &str = "Examples:
  kubectl ferrolb status
  kubectl ferrolb status --watch
  kubectl ferrolb status -o json | jq '.services[] | select(.announced | not)'

Exit code: 0, or 2 if the objects cannot be read.";

const WHY_HELP: &str = "Examples:
  kubectl ferrolb why web
  kubectl ferrolb why shop/db

Exit code: 0 if all addresses are announced, 1 if not (with --strict, also if there is a warning), 2
if the Service does not exist or the objects cannot be read.";

const PLAN_HELP: &str = "Examples:
  kubectl ferrolb plan -f pools.yaml
  kubectl ferrolb plan -k overlays/production --fail-on address-loss
  kubectl ferrolb plan --delete old-pool.yaml

The files may contain FerroLB's custom resources, Services, Namespaces, and Nodes with the labels to
change; null removes a label. kubectl sends the objects to the API server, which validates them and
stores nothing. You need the permission to apply them.

Exit code: 0, or 1 if the manifests have the effect of --fail-on, or 2 if a file or an object is
rejected, or the objects cannot be read.";

const DRAIN_HELP: &str = "Examples:
  kubectl ferrolb drain node1 --dry-run
  kubectl ferrolb drain node1 --dry-run -o json | jq -r '.addresses[].services[]'

Exit code: 0 if the node is not used after the drain, 1 if it is still used, 2 if the Node does not
exist or the objects cannot be read.";

const CHECK_HELP: &str = "Examples:
  kubectl ferrolb check --pre
  kubectl ferrolb check
  kubectl ferrolb check -o json | jq -r '.categories[].findings[].code'

Exit code: 0, or 1 for problems (with --strict also for warnings), or 2 if the objects cannot be
read.";

const INIT_HELP: &str = "Examples:
  kubectl ferrolb init
  kubectl ferrolb init --range 192.168.1.240-192.168.1.250 --yes
  kubectl ferrolb init | kubectl apply -f -

Exit code: 0, or 2 if there is no free address, or if the objects cannot be read or applied.";

const INSTALL_HELP: &str = "Examples:
  kubectl ferrolb install
  kubectl ferrolb install --variant bgp --range 192.168.1.240-192.168.1.250 --yes
  kubectl ferrolb install --dry-run | kubectl diff -f -

Exit code: 0, or 1 if the check finds an obstacle and nothing is applied, or 2 if another program
installed FerroLB, pods do not become ready, or objects cannot be read or applied.";

const COMPLETION_HELP: &str = "Examples:
  source <(kubectl-ferrolb completion bash)
  kubectl-ferrolb completion fish > ~/.config/fish/completions/kubectl-ferrolb.fish

The script completes kubectl-ferrolb, with the hyphen. kubectl completes `kubectl ferrolb` if the
program is in the PATH as kubectl_complete-ferrolb, too: a symbolic link is sufficient.";

/// Format of a status.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One JSON object.
    Json,
    /// Tables with more columns.
    Wide,
}

/// Format of all other outputs.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonOutput {
    /// One JSON object.
    Json,
}

/// Effect of a plan for which the command fails.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailOn {
    /// A Service that FerroLB serves loses an address.
    AddressLoss,
}

/// Format of a check.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutput {
    /// One JSON object.
    Json,
    /// One line for each finding.
    Short,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Adds the problems of the help of a command and of its subcommands to `problems`.
    fn check(command: &clap::Command, problems: &mut Vec<String>) {
        let name = command.get_name();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (examples, rest) = help.split_once("\n\n").unwrap_or((&help, ""));
        let lines = examples.strip_prefix("Examples:\n").unwrap_or_default().lines();
        let subcommands: Vec<_> = command.get_subcommands().collect();
        if lines.filter(|line| line.contains("kubectl")).count() < 2 {
            problems.push(format!("{name}: two examples are missing"));
        }
        if subcommands.is_empty() && name != "completion" && !rest.contains("Exit code: 0") {
            problems.push(format!("{name}: the exit codes are missing"));
        }
        if help.lines().any(|line| line.chars().count() > 101) {
            problems.push(format!("{name}: a line is too long"));
        }
        subcommands.into_iter().for_each(|it| check(it, problems));
    }

    #[test]
    fn the_help_of_every_command_has_examples_and_exit_codes() {
        let mut problems = Vec::new();
        check(&Args::command(), &mut problems);
        assert_eq!(problems, [""; 0]);
    }
}

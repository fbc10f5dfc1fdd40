//! Command line of `kubectl ferrolb`. `main` reads it once.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ferrolb_proto::api::NAMESPACE;

/// Explains why an address works or does not, from API objects alone.
#[derive(Parser, Debug)]
#[command(name = "kubectl-ferrolb", bin_name = "kubectl ferrolb", version)]
pub struct Args {
    /// Namespace of FerroLB
    #[arg(long, global = true, value_name = "NAMESPACE", default_value = NAMESPACE)]
    pub installation: String,

    /// Context of the kubeconfig file; default: the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Path of the kubeconfig file; default: as kubectl
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show speakers, pools, and all Services with their addresses, nodes and reasons
    #[command(after_help = STATUS_HELP)]
    Status {
        /// Show the status every two seconds, until Ctrl+C
        #[arg(long, short, conflicts_with = "output")]
        watch: bool,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<Output>,
    },
    /// Explain a Service: for each address and node, whether it announces, or the reason why not
    #[command(after_help = WHY_HELP)]
    Why {
        /// Name of the Service, or NAMESPACE/NAME
        #[arg(value_name = "SERVICE")]
        service: String,
        /// Namespace of the Service; default: the one of the context
        #[arg(long, short)]
        namespace: Option<String>,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<WhyOutput>,
    },
    /// Check the cluster and FerroLB in it: numbered findings with the next command
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Check the cluster before an installation
        #[arg(long)]
        pre: bool,
        /// Exit with 1 also for warnings
        #[arg(long)]
        strict: bool,
        /// Format of the output
        #[arg(long, short, value_enum, value_name = "FORMAT")]
        output: Option<CheckOutput>,
    },
    /// Propose a first pool in the subnet of the nodes, and apply it
    #[command(after_help = INIT_HELP)]
    Init {
        /// Name of the pool and of its L2Advertisement; default: default
        #[arg(long, value_name = "NAME")]
        pool: Option<String>,
        /// Addresses of the pool; default: up to 11 free ones near the end of the subnet
        #[arg(long, value_name = "RANGE")]
        range: Option<String>,
        /// Apply the objects without a confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Print a script for the completion of commands in a shell
    #[command(after_help = COMPLETION_HELP)]
    Completion {
        /// The shell
        shell: Shell,
    },
}

const STATUS_HELP: &str = "Examples:
  kubectl ferrolb status
  kubectl ferrolb status -o json | jq '.services[] | select(.announced | not)'

Exit code: 0, or 2 if the status cannot be read.";

const WHY_HELP: &str = "Examples:
  kubectl ferrolb why web
  kubectl ferrolb why shop/db

Exit code: 0 if all addresses are announced, 1 if not, 2 if the Service does not exist or the objects
cannot be read.";

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

const COMPLETION_HELP: &str = "Example:
  kubectl ferrolb completion bash > /etc/bash_completion.d/kubectl-ferrolb";

/// Format of a status.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One JSON object.
    Json,
    /// Tables with more columns.
    Wide,
}

/// Format of an explanation.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyOutput {
    /// One JSON object.
    Json,
}

/// Format of a check.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutput {
    /// One JSON object.
    Json,
    /// One line for each finding.
    Short,
}

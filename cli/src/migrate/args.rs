//! Flags of the command `migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// The load balancer to migrate from.
#[derive(Subcommand, Debug)]
pub enum Source {
    /// Migrate from MetalLB: compare both ways (the default), or plan one of them
    #[command(after_help = METALLB_HELP)]
    Metallb {
        /// Plan the migration to FerroLB's own objects, and write them
        #[arg(long, conflicts_with = "in_place")]
        own_group: bool,
        /// Plan the migration in which FerroLB uses MetalLB's objects
        #[arg(long)]
        in_place: bool,
        /// Namespace of MetalLB; default: the one of its pools
        #[arg(long, value_name = "NAMESPACE")]
        metallb_namespace: Option<String>,
        /// Flags of all sources.
        #[command(flatten)]
        common: Common,
    },
    /// Migrate from ServiceLB of k3s: each Service gets an address of a pool
    #[command(after_help = EXIT_HELP)]
    Servicelb(Common),
    /// Migrate from kube-vip: its pools and peers become FerroLB's objects
    #[command(after_help = EXIT_HELP)]
    KubeVip(Common),
    /// Migrate from spec.externalIPs: a pool has exactly these addresses
    #[command(after_help = EXIT_HELP)]
    ExternalIps(Common),
}

/// Flags of all sources.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Print the plan, and write no files
    #[arg(long)]
    pub plan: bool,
    /// Files or directories with the cluster's objects, in YAML or JSON; default: the cluster
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// Directory for the files, in which none of them may exist
    #[arg(long, value_name = "DIRECTORY", default_value = "ferrolb-migration")]
    pub to: PathBuf,
    /// Format of the output
    #[arg(long, short, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// Format of a plan.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
}

impl Source {
    /// Returns the flags of all sources.
    #[must_use]
    pub const fn common(&self) -> &Common {
        match self {
            Self::Metallb { common, .. }
            | Self::Servicelb(common)
            | Self::KubeVip(common)
            | Self::ExternalIps(common) => common,
        }
    }
}

const METALLB_HELP: &str = "Examples:
  kubectl ferrolb migrate metallb
  kubectl ferrolb migrate metallb --own-group --to migration
  kubectl ferrolb migrate metallb --from services.yaml metallb.yaml

Exit code: 0 if all addresses are kept, 1 if there are problems or addresses change, 2 if the objects
cannot be read. Without --own-group and --in-place, 0 if one of the two ways has no problem.";

const EXIT_HELP: &str = "Exit code: 0 if all addresses are kept, 1 if there are problems or \
    addresses change, 2 if the objects cannot be read.";

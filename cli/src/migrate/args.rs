//! Flags of the command `migrate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::args::JsonOutput;

/// The load balancer to migrate from.
#[derive(Subcommand, Debug)]
pub enum Source {
    /// Migrate from MetalLB: compare two ways (the default), or plan one
    #[command(after_help = METALLB_HELP)]
    Metallb {
        /// Plan the migration to FerroLB's own objects, and write them
        #[arg(long, conflicts_with = "in_place")]
        own_group: bool,
        /// Plan the migration in which FerroLB uses MetalLB's objects
        #[arg(long)]
        in_place: bool,
        /// Plan the migration to FerroLB's own objects, one group of nodes after the other
        #[arg(long, conflicts_with_all = ["own_group", "in_place"])]
        node_by_node: bool,
        /// Label of the Nodes: those with equal values are a group; default: each Node
        #[arg(long, value_name = "LABEL", requires = "node_by_node")]
        group_by: Option<String>,
        /// Namespace of MetalLB; default: the one of its pools
        #[arg(long, value_name = "NAMESPACE")]
        metallb_namespace: Option<String>,
        /// Flags of all sources.
        #[command(flatten)]
        common: Common,
    },
    /// Migrate from ServiceLB of k3s: each Service gets an address of a pool
    #[command(after_help = SERVICELB_HELP)]
    Servicelb(Common),
    /// Migrate from kube-vip: its pools and peers become FerroLB's objects
    #[command(after_help = KUBE_VIP_HELP)]
    KubeVip(Common),
    /// Migrate from spec.externalIPs: each Service keeps its addresses
    #[command(after_help = EXTERNAL_IPS_HELP)]
    ExternalIps(Common),
}

/// Flags of all sources.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Print the plan, and write no file
    #[arg(long)]
    pub plan: bool,
    /// Files or directories with the cluster's objects, in YAML or JSON; default: the cluster
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// Directory for the files; existing files are not replaced
    #[arg(long, value_name = "DIRECTORY", default_value = "ferrolb-migration")]
    pub to: PathBuf,
    /// Format of the output
    #[arg(long, short, value_enum, value_name = "FORMAT")]
    pub output: Option<JsonOutput>,
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

/// Help of the command without a source.
pub const HELP: &str = "Examples:
  kubectl ferrolb migrate metallb
  kubectl ferrolb migrate external-ips --plan

The command changes nothing in the cluster: it prints the steps, and writes the objects and the steps
to files.";

const METALLB_HELP: &str = "Examples:
  kubectl ferrolb migrate metallb
  kubectl ferrolb migrate metallb --own-group --to migration
  kubectl ferrolb migrate metallb --node-by-node --group-by topology.kubernetes.io/zone
  kubectl ferrolb migrate metallb --from services.yaml metallb.yaml

Exit code: 0 if all addresses are kept, 1 if there are problems or addresses change, 2 if the objects
cannot be read or a file exists. Without the choice of a way, 0 if one of the two has no problem.";

const SERVICELB_HELP: &str = "Examples:
  kubectl ferrolb migrate servicelb
  kubectl ferrolb migrate servicelb -o json | jq .

Exit code: 0 if all addresses are kept, 1 if there are problems or addresses change, 2 if the objects
cannot be read or a file exists.";

const KUBE_VIP_HELP: &str = "Examples:
  kubectl ferrolb migrate kube-vip --plan
  kubectl ferrolb migrate kube-vip --to migration

Exit code: 0 if all addresses are kept, 1 if there are problems or addresses change, 2 if the objects
cannot be read or a file exists.";

const EXTERNAL_IPS_HELP: &str = "Examples:
  kubectl ferrolb migrate external-ips --plan
  kubectl ferrolb migrate external-ips --from services.yaml

Exit code: 0 if all addresses are kept, 1 if there are problems or addresses change, 2 if the objects
cannot be read or a file exists.";

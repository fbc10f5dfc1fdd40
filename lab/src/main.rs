//! Command line of the lab, `cargo lab`. The process only parses the arguments; long-running
//! commands run in a worker under [`supervise`].

mod commands;
mod supervise;

use clap::{Parser, Subcommand, ValueEnum};
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::topology::LabName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Run a real Kubernetes cluster in network namespaces on this machine, with FerroLB in it.
#[derive(Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", version)]
struct Args {
    /// Name of the lab; labs with different names run side by side.
    #[arg(long, global = true)]
    name: Option<LabName>,
    #[arg(long, hide = true)]
    worker: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a page served over a LoadBalancer address and the failover after a node failure, in a
    /// temporary lab.
    Demo {
        /// Keep the lab running, and print commands to explore it.
        #[arg(long)]
        keep: bool,
        /// Write a recording of the demo to this file, as an animated SVG.
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
    /// Start a cluster with FerroLB and leave it running.
    Up(commands::up::UpArgs),
    /// Stop a lab, including one that a killed process left.
    Down,
    /// List the labs with their hosts and processes.
    Status,
    /// Run kubectl in the only running lab, or in that of --name (before the subcommand).
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a program on a host of the lab: client, cp, node1, a pod's name; with BGP also tor1,
    /// tor2, tor3, outside.
    Exec {
        host: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Run the tests of one tier, or of all tiers.
    Test {
        tier: Option<commands::test::Tier>,
        /// Run only the tests of this network plugin, of the tier `cni`.
        #[arg(long, value_enum, requires = "tier")]
        cni: Option<NetworkPlugin>,
    },
    /// Run benchmarks (one, several, or all) and compare the results with their targets.
    Bench(commands::bench::BenchArgs),
    /// Fuzz the parsers for received frames, and the claim state machine.
    Fuzz(commands::fuzz::FuzzArgs),
    /// Build FerroLB's images for both architectures without Docker and without a registry, and
    /// print their sizes.
    Images,
    /// Build the folder of a release: images, chart, manifests with digests, `kubectl ferrolb`, and
    /// checksums. Publishes nothing.
    Dist(commands::dist::DistArgs),
    /// Push the folder of a release to its registry, and sign it.
    Publish(commands::publish::PublishArgs),
    /// Remove everything that the lab has built and cached, and print the freed size.
    Clean,
    #[command(hide = true)]
    Serve { pod: String, port: u16 },
    #[command(hide = true)]
    Machine,
    #[command(hide = true)]
    Parts,
    /// Print the directory with zig.
    #[command(hide = true)]
    Zig,
    #[command(hide = true)]
    Idle {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        program: Vec<String>,
    },
    #[command(hide = true)]
    Renew { node: String, kubeconfig: PathBuf },
    /// Open a connection to ADDRESS:PORT every STEP_MS milliseconds for SECONDS, and print the
    /// results as JSON.
    Probe { server: SocketAddr, seconds: f64, step_ms: u64 },
}

/// Mode of kube-proxy.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProxyMode {
    Nftables,
    Iptables,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let is_supervised = matches!(
        args.command,
        Command::Demo { .. }
            | Command::Up { .. }
            | Command::Test { .. }
            | Command::Bench(_)
            | Command::Images
            | Command::Dist(_)
    );
    let result = if is_supervised && !args.worker {
        supervise::supervise()
    } else {
        run_command(args).map(|()| ExitCode::SUCCESS)
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_command(args: Args) -> anyhow::Result<()> {
    if args.worker {
        supervise::end_with_parent()?;
    }
    match args.command {
        Command::Demo { keep, record } => commands::demo::demo(args.name, keep, record.as_deref()),
        Command::Up(up) => commands::up::up(args.name, &up),
        Command::Down => commands::down::down(args.name),
        Command::Status => commands::status::status(),
        Command::Kubectl { args: kubectl_args } => {
            commands::enter::kubectl(args.name, &kubectl_args)
        }
        Command::Exec { host, command } => commands::enter::exec(args.name, &host, &command),
        Command::Test { tier, cni } => commands::test::test(tier, cni),
        Command::Bench(bench) => commands::bench::bench(args.name, &bench),
        Command::Fuzz(fuzz) => commands::fuzz::fuzz(&fuzz),
        Command::Images => commands::images::images(),
        Command::Dist(dist) => commands::dist::dist(&dist),
        Command::Publish(publish) => commands::publish::publish(&publish),
        Command::Clean => commands::clean::clean(),
        Command::Serve { pod, port } => {
            commands::block_on(ferrolb_lab::traffic::serve::serve(&pod, port))?
        }
        Command::Machine => commands::machine::machine(),
        Command::Parts => commands::parts::parts(),
        Command::Zig => {
            println!("{}", ferrolb_lab::setup::zig::install()?.display());
            Ok(())
        }
        Command::Idle { program } => commands::parts::idle(&program),
        Command::Renew { node, kubeconfig } => {
            commands::block_on(ferrolb_lab::cluster::lease::renew(&node, &kubeconfig))?
        }
        Command::Probe { server, seconds, step_ms } => commands::probe(
            server,
            Duration::try_from_secs_f64(seconds)?,
            Duration::from_millis(step_ms),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_valid() {
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_after_kubectl_are_passed_to_kubectl() {
        let args = Args::parse_from([
            "cargo lab",
            "--name",
            "a",
            "kubectl",
            "get",
            "svc",
            "-o",
            "wide",
            "--name",
            "b",
        ]);
        let Command::Kubectl { args: kubectl_args } = args.command else { panic!("not kubectl") };
        assert_eq!(kubectl_args, ["get", "svc", "-o", "wide", "--name", "b"]);
        assert_eq!(args.name.unwrap().to_string(), "a");
    }

    #[test]
    fn a_pod_name_is_not_parsed_as_a_lab_name() {
        let args = Args::parse_from(["cargo lab", "serve", "web-1", "8080"]);
        let Command::Serve { pod, port } = args.command else { panic!("not serve") };
        assert_eq!((pod.as_str(), port, args.name), ("web-1", 8080, None));
    }

    #[test]
    fn exec_takes_its_command_after_two_dashes() {
        let args = Args::parse_from([
            "cargo lab",
            "exec",
            "client",
            "--",
            "curl",
            "-v",
            "http://172.30.0.200/",
        ]);
        let Command::Exec { host, command } = args.command else { panic!("not exec") };
        assert_eq!((host.as_str(), command.len()), ("client", 3));
        assert!(Args::try_parse_from(["cargo lab", "exec", "client"]).is_err());
    }
}

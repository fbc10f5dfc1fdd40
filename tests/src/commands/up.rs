//! `cargo lab up`: everything from a bare machine to a running lab, step by step.

use crate::ProxyMode;
use anyhow::Result;
use clap::Args;
use ferrolb_tests::setup::kubeadm::{self, Parts};
use ferrolb_tests::setup::kubernetes::Version;
use ferrolb_tests::setup::{Tools, docker, doctor, gobgp, packages, programs};
use ferrolb_tests::state;
use ferrolb_tests::steps::Steps;
use ferrolb_tests::topology::{Families, LabName};
use ferrolb_tests::{Lab, Options};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The lab that `up` raises when it is given no name.
pub(crate) const DEFAULT_NAME: &str = "lab";
/// How many steps [`prepare`] takes.
pub(crate) const PREPARE_STEPS: usize = 4;
/// How many more it takes where there are to be kubelets.
pub(crate) const KUBEADM_STEPS: usize = 1;
/// How many more it takes where there is to be the oldest Kubernetes, too.
pub(crate) const OLDEST_STEPS: usize = 1;
/// How many more it takes where there are to be routers.
pub(crate) const ROUTER_STEPS: usize = 1;

// What each step takes on two cores, measured; shown as its usual time.
const PACKAGES_USUAL: Duration = Duration::from_secs(20);
const KUBERNETES_USUAL: Duration = Duration::from_secs(280);
const GOBGP_USUAL: Duration = Duration::from_secs(50);
const PROGRAMS_USUAL: Duration = Duration::from_secs(90);
const NOTHING_TO_DO_USUAL: Duration = Duration::from_secs(1);
const PARTS_USUAL: Duration = Duration::from_secs(400);
const KUBEADM_CLUSTER_USUAL: Duration = Duration::from_secs(25);
pub(crate) const CLUSTER_USUAL: Duration = Duration::from_secs(6);
pub(crate) const FERROLB_USUAL: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct UpArgs {
    /// How many nodes, 1 to 20.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// The IP families of the cluster.
    #[arg(long, value_enum, default_value_t = Families::Dual)]
    families: Families,
    /// Which Kubernetes: the newest, or the oldest that FerroLB supports.
    #[arg(long, value_enum, default_value_t = Version::Newest)]
    kubernetes: Version,
    /// How kube-proxy programs the kernel.
    #[arg(long, value_enum, default_value_t = ProxyMode::Nftables)]
    proxy_mode: ProxyMode,
    /// Nodes renew leases as kubelets do, and one that is off becomes NotReady a minute later; without it they are always Ready.
    #[arg(long)]
    leases: bool,
    /// A gobgpd on every node, and hosts for routers: tor1, tor2, tor3, and outside, a client behind them.
    #[arg(long)]
    bgp: bool,
    /// A kubelet on every node: `kubeadm init` and `kubeadm join` make the cluster, FerroLB runs in pods, and node1 is the control plane.
    #[arg(long, conflicts_with_all = ["bgp", "leases", "proxy_mode", "kubernetes"])]
    kubeadm: bool,
    /// The cluster only, without FerroLB in it.
    #[arg(long)]
    bare: bool,
}

/// Raises a lab and leaves it standing.
pub(crate) fn up(name: Option<LabName>, args: &UpArgs) -> Result<()> {
    let name = name.map_or_else(|| DEFAULT_NAME.parse(), Ok)?;
    let routers = if args.bgp { ROUTER_STEPS } else { 0 };
    let more = routers + if args.kubeadm { KUBEADM_STEPS } else { 0 };
    let mut steps = Steps::new(PREPARE_STEPS + more + if args.bare { 1 } else { 2 });
    let mut tools = prepare(&mut steps, args.bgp, args.kubernetes)?;
    if args.kubeadm {
        tools.kubeadm = Some(prepare_kubeadm(&mut steps)?);
    }
    let proxy_mode = match args.proxy_mode {
        ProxyMode::Nftables => "nftables",
        ProxyMode::Iptables => "iptables",
    };
    let options = Options {
        name: name.to_string(),
        nodes: args.nodes,
        families: args.families,
        kubernetes: args.kubernetes,
        proxy_mode: Some(proxy_mode.to_owned()),
        leases: args.leases,
        bgp: args.bgp,
        kubeadm: args.kubeadm,
        story: false,
    };
    let usual = if args.kubeadm { KUBEADM_CLUSTER_USUAL } else { CLUSTER_USUAL };
    let lab = steps.step(&cluster_title(&options), usual, || Lab::up(&tools, &options))?;
    if !args.bare {
        let start = || if args.kubeadm { lab.deploy_ferrolb() } else { lab.start_ferrolb() };
        steps.step("Start FerroLB", FERROLB_USUAL, start)?;
    }
    lab.keep()?;
    println!("The lab {name} is up.\n{}", look_around(&name, None));
    if args.bgp {
        println!("Routers can run on tor1, tor2 and tor3: docs/bgp.md, \"In the lab\".");
    }
    Ok(())
}

/// Checks the machine, installs packages, builds Kubernetes and FerroLB; where there are to be routers, what these need, too.
pub(crate) fn prepare(steps: &mut Steps, routers: bool, kubernetes: Version) -> Result<Tools> {
    steps.step("Check the machine: rights, Rust, Go, disk", NOTHING_TO_DO_USUAL, doctor::check)?;
    let missing = packages::missing(routers)?;
    let (title, usual) = match missing.is_empty() {
        true => ("Debian packages: all there".to_owned(), NOTHING_TO_DO_USUAL),
        false => (format!("Install Debian packages: {}", missing.join(" ")), PACKAGES_USUAL),
    };
    steps.step(&title, usual, || packages::install(&missing))?;
    let kubernetes = prepare_kubernetes(steps, kubernetes)?;
    let gobgp = if routers { Some(prepare_gobgp(steps)?) } else { None };
    let programs = steps.step("Build FerroLB", PROGRAMS_USUAL, programs::build)?;
    Ok(Tools { kubernetes, programs, gobgp, docker: false, kubeadm: None })
}

/// Builds a Kubernetes.
pub(crate) fn prepare_kubernetes(steps: &mut Steps, kubernetes: Version) -> Result<PathBuf> {
    let version = kubernetes.name()?;
    let (title, usual) = match kubernetes.is_built()? {
        true => (format!("Kubernetes {version}: built before"), NOTHING_TO_DO_USUAL),
        false => (format!("Build Kubernetes {version} from its Go modules"), KUBERNETES_USUAL),
    };
    steps.step(&title, usual, || kubernetes.build())
}

/// Makes what the machines of a kubeadm cluster are made of.
pub(crate) fn prepare_kubeadm(steps: &mut Steps) -> Result<Parts> {
    steps.step("Parts of a kubeadm cluster: kubelet, Debian, images", PARTS_USUAL, kubeadm::build)
}

fn prepare_gobgp(steps: &mut Steps) -> Result<PathBuf> {
    let (title, usual) = match gobgp::is_built()? {
        true => (format!("GoBGP {}: built before", gobgp::VERSION), NOTHING_TO_DO_USUAL),
        false => (format!("Build GoBGP {} from its Go module", gobgp::VERSION), GOBGP_USUAL),
    };
    steps.step(&title, usual, gobgp::build)
}

/// Installs a Docker engine where there is none.
pub(crate) fn prepare_docker(steps: &mut Steps) -> Result<()> {
    let missing = docker::missing();
    let (title, usual) = match missing.is_empty() {
        true => ("Docker engine: there", NOTHING_TO_DO_USUAL),
        false => ("Install a Docker engine", PACKAGES_USUAL),
    };
    steps.step(title, usual, || packages::install(&missing))
}

/// What the step that raises a cluster is called.
pub(crate) fn cluster_title(options: &Options) -> String {
    format!("Raise a Kubernetes cluster: control plane, {} node(s), {}", options.nodes, options.families)
}

/// What a person can do with a running lab, and with a Service that has an address in it.
pub(crate) fn look_around(name: &LabName, address: Option<IpAddr>) -> String {
    let lab = format!("cargo lab --name {name}");
    let page = address.map(|address| format!("  {lab} exec client -- curl http://{address}/\n")).unwrap_or_default();
    format!(
        "Look around:\n  {lab} kubectl get nodes,services -A\n{page}  {lab} exec client -- ip neigh\n  \
         {lab} exec node1 -- nft list ruleset\n  cargo lab status\nLogs are in {}.\nTake it down:\n  {lab} down",
        state::logs(name).display()
    )
}

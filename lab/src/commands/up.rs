//! `cargo lab up`: sets up a bare machine and starts a lab, step by step.

use crate::ProxyMode;
use anyhow::Result;
use clap::Args;
use ferrolb_lab::setup::kubeadm::{self, KubeadmParts};
use ferrolb_lab::setup::kubernetes::KubernetesVersion;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::setup::{Tools, docker, gobgp, installers, metallb};
use ferrolb_lab::setup::{packages, programs, requirements};
use ferrolb_lab::state;
use ferrolb_lab::steps::Steps;
use ferrolb_lab::topology::{Families, LabName};
use ferrolb_lab::{Lab, Options};
use ferrolb_lab_launcher::first_run::{FERROLB_BUILD, KUBERNETES_BUILD};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Default name of the lab of `up`.
pub(crate) const DEFAULT_NAME: &str = "lab";
/// Number of steps of [`prepare`].
pub(crate) const PREPARE_STEPS: usize = 4;
/// Additional steps for a kubeadm cluster.
pub(crate) const KUBEADM_STEPS: usize = 1;
/// Number of steps of [`prepare_scenarios`].
pub(crate) const SCENARIO_STEPS: usize = 1;
/// Additional steps for a network plugin.
pub(crate) const NETWORK_PLUGIN_STEPS: usize = 1;
/// Additional steps for routers.
pub(crate) const ROUTER_STEPS: usize = 1;

// Measured durations on two cores, shown as usual times of the steps. The launcher has those of the
// long builds.
const PACKAGES_USUAL_TIME: Duration = Duration::from_secs(20);
const GOBGP_USUAL_TIME: Duration = Duration::from_secs(50);
const NO_WORK_USUAL_TIME: Duration = Duration::from_secs(1);
const PARTS_USUAL_TIME: Duration = Duration::from_secs(400);
const NETWORK_PLUGIN_USUAL_TIME: Duration = Duration::from_secs(150);
const CILIUM_USUAL_TIME: Duration = Duration::from_secs(600);
const KUBEADM_CLUSTER_USUAL_TIME: Duration = Duration::from_secs(25);
pub(crate) const CLUSTER_USUAL_TIME: Duration = Duration::from_secs(6);
pub(crate) const FERROLB_USUAL_TIME: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct UpArgs {
    /// Number of nodes, 1 to 20.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// IP families of the cluster.
    #[arg(long, value_enum, default_value_t = Families::Dual)]
    families: Families,
    /// Version of Kubernetes: the newest, or the oldest that FerroLB supports.
    #[arg(long, value_enum, default_value_t = KubernetesVersion::Newest)]
    kubernetes: KubernetesVersion,
    /// Proxy mode of kube-proxy.
    #[arg(long, value_enum, default_value_t = ProxyMode::Nftables)]
    proxy_mode: ProxyMode,
    /// Nodes renew leases like kubelets, and a node without power becomes NotReady after a minute;
    /// without this flag nodes are always Ready.
    #[arg(long)]
    leases: bool,
    /// Run gobgpd on every node, and add the hosts tor1, tor2 and tor3 for routers, and outside, a
    /// client behind them.
    #[arg(long)]
    bgp: bool,
    /// Run a kubelet on every node: `kubeadm init` and `kubeadm join` create the cluster, FerroLB
    /// runs in pods, and node1 is the control plane.
    #[arg(long, conflicts_with_all = ["bgp", "leases", "kubernetes"])]
    kubeadm: bool,
    /// Install this network plugin by its own manifest or chart instead of the lab's bridges and
    /// routes. The cluster is dual stack.
    #[arg(long, value_enum, requires = "kubeadm", conflicts_with = "families")]
    cni: Option<NetworkPlugin>,
    /// Start a registry on the client's host instead of FerroLB. The nodes have no image of
    /// FerroLB, and can pull from the registry.
    #[arg(long, requires = "kubeadm")]
    registry: bool,
    /// Start the cluster only, without FerroLB.
    #[arg(long)]
    bare: bool,
}

impl UpArgs {
    /// Returns whether the lab starts without FerroLB.
    const fn is_bare(&self) -> bool {
        self.bare || self.registry
    }
}

/// Starts a lab and leaves it running.
pub(crate) fn up(name: Option<LabName>, args: &UpArgs) -> Result<()> {
    let name = name.map_or_else(|| DEFAULT_NAME.parse(), Ok)?;
    let routers = if args.bgp { ROUTER_STEPS } else { 0 };
    let plugin = if args.cni.is_some() { NETWORK_PLUGIN_STEPS } else { 0 };
    let more = routers + plugin + if args.kubeadm { KUBEADM_STEPS } else { 0 };
    let mut steps = Steps::new(PREPARE_STEPS + more + if args.is_bare() { 1 } else { 2 });
    let mut tools = prepare(&mut steps, args.bgp, args.kubernetes)?;
    if args.kubeadm {
        let parts = prepare_kubeadm(&mut steps)?;
        if let Some(plugin) = args.cni {
            prepare_network_plugins(&mut steps, &parts, &[plugin])?;
        }
        tools.kubeadm = Some(parts);
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
        containers: false,
        kubeadm: args.kubeadm,
        loopback_health: false,
        registry: args.registry,
        network_plugin: args.cni,
        audit: false,
        scenario: false,
    };
    let usual = if args.kubeadm { KUBEADM_CLUSTER_USUAL_TIME } else { CLUSTER_USUAL_TIME };
    let lab = steps.step(&cluster_title(&options), usual, || {
        let lab = Lab::up(&tools, &options)?;
        if args.cni.is_some() {
            lab.install_network_plugin()?;
        }
        Ok(lab)
    })?;
    if !args.is_bare() {
        let start = || if args.kubeadm { lab.deploy_ferrolb() } else { lab.start_ferrolb() };
        steps.step("Start FerroLB", FERROLB_USUAL_TIME, start)?;
    }
    lab.keep()?;
    println!("The lab {name} is running.\n{}", example_commands(&name, None));
    if args.bgp {
        println!(
            "Routers can run on tor1, tor2 and tor3: docs/internals/bgp.md, \"BGP in the lab\"."
        );
    }
    Ok(())
}

/// Checks the machine, installs packages, builds Kubernetes and FerroLB, and with `routers` also
/// prepares GoBGP.
pub(crate) fn prepare(
    steps: &mut Steps,
    routers: bool,
    kubernetes: KubernetesVersion,
) -> Result<Tools> {
    steps.step(
        "Check the machine: permissions, Rust, Go, disk",
        NO_WORK_USUAL_TIME,
        requirements::check,
    )?;
    let missing = packages::missing(routers)?;
    let (title, usual) = match missing.is_empty() {
        true => ("Debian packages: all installed".to_owned(), NO_WORK_USUAL_TIME),
        false => (format!("Install Debian packages: {}", missing.join(" ")), PACKAGES_USUAL_TIME),
    };
    steps.step(&title, usual, || packages::install(&missing))?;
    let version = kubernetes.name()?;
    let (title, usual) = match kubernetes.is_built()? {
        true => (format!("Kubernetes {version}: already built"), NO_WORK_USUAL_TIME),
        false => (format!("Build Kubernetes {version} from its Go modules"), KUBERNETES_BUILD),
    };
    let kubernetes = steps.step(&title, usual, || kubernetes.build())?;
    let gobgp = if routers { Some(prepare_gobgp(steps)?) } else { None };
    let programs = steps.step("Build FerroLB", FERROLB_BUILD, programs::build)?;
    Ok(Tools { kubernetes, programs, gobgp, kubeadm: None })
}

/// Builds the programs that scenarios run next to a cluster, before the first scenario: a build in
/// a scenario would take its processor time from other labs.
pub(crate) fn prepare_scenarios(steps: &mut Steps) -> Result<()> {
    steps.step(
        "Parts of the scenarios: the oldest Kubernetes, MetalLB, kustomize, Helm",
        PARTS_USUAL_TIME,
        || {
            KubernetesVersion::Oldest.build()?;
            metallb::build()?;
            installers::kustomize()?;
            installers::helm().map(drop)
        },
    )
}

/// Builds the programs that scenarios of the tier `peers` run next to a cluster.
pub(crate) fn prepare_peers(steps: &mut Steps) -> Result<()> {
    steps.step("Parts of the scenarios: MetalLB, older versions of GoBGP", PARTS_USUAL_TIME, || {
        metallb::build()?;
        gobgp::build_older()
    })
}

/// Builds the programs, the root file system and the images of a kubeadm cluster's machines.
pub(crate) fn prepare_kubeadm(steps: &mut Steps) -> Result<KubeadmParts> {
    steps.step(
        "Parts of a kubeadm cluster: kubelet, Debian, images",
        PARTS_USUAL_TIME,
        kubeadm::build,
    )
}

/// Builds the images of network plugins.
pub(crate) fn prepare_network_plugins(
    steps: &mut Steps,
    parts: &KubeadmParts,
    plugins: &[NetworkPlugin],
) -> Result<()> {
    let names: Vec<_> =
        plugins.iter().map(|plugin| format!("{plugin} {}", plugin.version())).collect();
    let title = format!("Parts of network plugins: {}", names.join(", "));
    let usual = match plugins.contains(&NetworkPlugin::Cilium) {
        true => CILIUM_USUAL_TIME,
        false => NETWORK_PLUGIN_USUAL_TIME,
    };
    steps.step(&title, usual, || {
        plugins.iter().try_for_each(|plugin| plugin.build(&parts.root).map(drop))
    })
}

fn prepare_gobgp(steps: &mut Steps) -> Result<PathBuf> {
    let (title, usual) = match gobgp::is_built()? {
        true => (format!("GoBGP {}: already built", gobgp::VERSION), NO_WORK_USUAL_TIME),
        false => (format!("Build GoBGP {} from its Go module", gobgp::VERSION), GOBGP_USUAL_TIME),
    };
    steps.step(&title, usual, gobgp::build)
}

/// Installs a Docker engine if there is none.
pub(crate) fn prepare_docker(steps: &mut Steps) -> Result<()> {
    let missing = docker::missing();
    let (title, usual) = match missing.is_empty() {
        true => ("Docker engine: installed", NO_WORK_USUAL_TIME),
        false => ("Install a Docker engine", PACKAGES_USUAL_TIME),
    };
    steps.step(title, usual, || packages::install(&missing))
}

/// Returns the title of the step that starts a cluster.
pub(crate) fn cluster_title(options: &Options) -> String {
    format!(
        "Start a Kubernetes cluster: control plane, {} node(s), {}",
        options.nodes, options.families
    )
}

/// Returns example commands for a running lab, and for a Service address in it.
pub(crate) fn example_commands(name: &LabName, address: Option<IpAddr>) -> String {
    let lab = format!("cargo lab --name {name}");
    let page = address
        .map(|address| format!("  {lab} exec client -- curl http://{address}/\n"))
        .unwrap_or_default();
    format!(
        "Explore the lab:\n  {lab} kubectl get nodes,services -A\n{page}  {lab} exec client -- ip neigh\n  \
         {lab} exec node1 -- nft list ruleset\n  cargo lab status\nLogs are in {}.\nStop the lab:\n  {lab} down",
        state::logs(name).display()
    )
}

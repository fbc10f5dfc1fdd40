//! One lab from `up` to `down`. The owner of a `Lab` value owns the lab: dropping the value stops
//! the lab, unless it is kept.

pub mod admin;
pub mod faults;
mod hosts;
mod objects;

pub use hosts::{RunningProbe, kubectl_command};

use crate::cluster::{api, bgp, control_plane, docker, ferrolb, kubeadm, lease, network, nodes};
use crate::setup::Tools;
use crate::setup::kubernetes::KubernetesVersion;
use crate::setup::network_plugin::NetworkPlugin;
use crate::state::{LabFacts, LabState};
use crate::topology::{self, CONTROL_PLANE, Families, LabName, NODES_MAX, node_name};
use crate::traffic::page;
use crate::{netns, process, run, teardown, wait};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU8;
use std::time::Duration;

/// Port of kube-proxy's health check.
pub const PROXY_HEALTH_PORT: u16 = 10256;
/// Maximum time for a program to become ready, on a busy machine.
const PROGRAM_READY_MAX: Duration = Duration::from_secs(30);
/// Timeout for pods to become ready, on a busy machine, as a flag of kubectl.
const ROLLOUT_MAX: &str = "--timeout=120s";
/// Maximum time of one health request.
const REQUEST_MAX: Duration = Duration::from_secs(1);
/// Number of log lines to show when a program fails.
const LOG_LINES: usize = 20;

/// Options of a lab.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub nodes: u8,
    pub families: Families,
    pub kubernetes: KubernetesVersion,
    /// `nftables` or `iptables`; `None`: no node has a kube-proxy.
    pub proxy_mode: Option<String>,
    /// True if each node renews a Lease, so that Kubernetes detects a node failure. Otherwise all
    /// nodes are always Ready.
    pub leases: bool,
    /// True if each node has a gobgpd, and hosts exist for routers and for a client behind them.
    pub bgp: bool,
    /// True if the hosts of routers are containers, with a Docker engine of the lab.
    pub containers: bool,
    /// True if each node is a machine whose kubelet runs pods. kubeadm creates the cluster, with a
    /// kube-proxy on each machine; the first machine is the control plane.
    pub kubeadm: bool,
    /// True if the kube-proxies of such machines serve their health at loopback only, as in k3s and
    /// RKE2.
    pub loopback_health: bool,
    /// True if such machines get FerroLB's images only from a registry on the client's host.
    pub registry: bool,
    /// Network plugin of such machines, for two families, which [`Lab::install_network_plugin`]
    /// installs; `None` for the lab's own bridges and routes.
    pub network_plugin: Option<NetworkPlugin>,
    /// True if the API server logs the requests of FerroLB's accounts.
    pub audit: bool,
    /// True if the lab is for a test scenario: Kubernetes' own programs run at low priority unless
    /// a kubelet runs them.
    pub scenario: bool,
}

impl Options {
    /// Returns the defaults: three nodes, dual stack, the newest Kubernetes, kube-proxy in nftables
    /// mode, no leases, no BGP, no log of requests.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: 3,
            families: Families::Dual,
            kubernetes: KubernetesVersion::Newest,
            proxy_mode: Some("nftables".to_owned()),
            leases: false,
            bgp: false,
            containers: false,
            kubeadm: false,
            loopback_health: false,
            registry: false,
            network_plugin: None,
            audit: false,
            scenario: false,
        }
    }
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    state: LabState,
    facts: LabFacts,
    tools: Tools,
    pods: AtomicU8,
}

impl Lab {
    /// Starts a cluster without FerroLB. Removes labs of killed processes first, of this name and
    /// of others.
    ///
    /// # Errors
    /// If a live process uses this name, or if a part does not start; the lab is then removed.
    pub fn up(tools: &Tools, options: &Options) -> Result<Self> {
        let name: LabName = options.name.parse()?;
        ensure!(
            (1..=NODES_MAX).contains(&options.nodes),
            "a lab has 1 to {NODES_MAX} nodes, not {}",
            options.nodes
        );
        teardown::sweep()?;
        teardown::down(&name)?;
        let facts = LabFacts {
            nodes: options.nodes,
            families: options.families,
            proxy_mode: options.proxy_mode.clone(),
            leases: options.leases,
            kubernetes: tools.kubernetes.clone(),
            version: options.kubernetes,
            gobgp: if options.bgp {
                Some(tools.gobgp.clone().context("a lab with BGP needs GoBGP")?)
            } else {
                None
            },
            containers: options.containers,
            kubeadm: options.kubeadm,
            loopback_health: options.loopback_health,
            registry: options.registry,
            network_plugin: options.network_plugin,
            audit: options.audit,
            scenario: options.scenario,
            kept: false,
        };
        let state = LabState::create(&name, &facts)?;
        let lab = Self { state, facts, tools: tools.clone(), pods: AtomicU8::new(1) };
        lab.start().with_context(|| format!("the lab {name} did not start"))?;
        Ok(lab)
    }

    fn start(&self) -> Result<()> {
        if self.facts.kubeadm {
            let parts = self
                .tools
                .kubeadm
                .as_ref()
                .context("a kubeadm lab needs the parts of its machines")?;
            return kubeadm::start(&self.state, &self.facts, parts, &self.tools.programs.lab);
        }
        network::build(&self.state.name, &self.facts)?;
        if self.facts.containers {
            docker::start_engine(&self.state, &self.facts)?;
        }
        control_plane::start(&self.state, &self.facts)?;
        if let Some(gobgp) = &self.facts.gobgp {
            self.nodes()
                .iter()
                .try_for_each(|node| bgp::start(&self.state, gobgp, node).map(drop))?;
        }
        self.wait_api_ready()?;
        control_plane::start_controller_manager(&self.state, &self.facts)?;
        let version = self.facts.version.name()?;
        self.api(async |client| nodes::register(&client, &self.facts, &version).await)?;
        if self.facts.leases {
            self.nodes().iter().try_for_each(|node| {
                lease::start(&self.state, &self.tools.programs.lab, node).map(drop)
            })?;
        }
        let Some(mode) = &self.facts.proxy_mode else { return Ok(()) };
        for index in 1..=self.facts.nodes {
            nodes::start_proxy(&self.state, &self.facts, mode, index)?;
        }
        for node in self.nodes() {
            self.wait_healthy(&nodes::proxy_name(&node), &node, PROXY_HEALTH_PORT, "/healthz")?;
        }
        Ok(())
    }

    /// Installs the network plugin by its own manifest, and waits until the cluster is complete.
    /// Until then the nodes are not ready.
    ///
    /// # Errors
    /// If the API server rejects an object, or a part of the cluster does not become ready.
    pub fn install_network_plugin(&self) -> Result<()> {
        self.configure_network_plugin(&[])?;
        let nodes = usize::from(self.facts.nodes);
        self.api(async |client| kubeadm::wait_complete(&client, nodes).await)
    }

    /// Applies the network plugin's manifest with these values of its chart, and returns at once.
    ///
    /// # Errors
    /// If the API server rejects an object, or the plugin has no such value.
    pub fn configure_network_plugin(&self, settings: &[&str]) -> Result<()> {
        let plugin = self.facts.network_plugin.context("this lab has no network plugin")?;
        self.apply_objects(&plugin.objects(settings)?)
    }

    /// Applies `deploy/` without its workloads, and creates the components' own credentials.
    ///
    /// # Errors
    /// If the API server rejects an object.
    pub fn install_ferrolb(&self) -> Result<()> {
        self.api(async |client| ferrolb::install(&client, &self.state).await)
    }

    /// Runs [`Self::install_ferrolb`] and [`Self::start_components`].
    ///
    /// # Errors
    /// If a component does not become ready, with the end of its log.
    pub fn start_ferrolb(&self) -> Result<()> {
        self.install_ferrolb()?;
        self.start_components(&[])
    }

    /// Starts the controller and a speaker on every node, with additional arguments, and waits
    /// until all of them are ready.
    ///
    /// # Errors
    /// See [`Self::start_ferrolb`].
    pub fn start_components(&self, extra: &[&str]) -> Result<()> {
        self.start_controller(extra)?;
        let nodes = self.nodes();
        nodes.iter().try_for_each(|node| self.start_speaker(node, extra))?;
        self.wait_healthy(ferrolb::CONTROLLER, CONTROL_PLANE, ferrolb::ADMIN_PORT, "/readyz")?;
        nodes.iter().try_for_each(|node| {
            self.wait_healthy(&ferrolb::speaker_name(node), node, ferrolb::ADMIN_PORT, "/readyz")
        })
    }

    /// Applies `deploy/install.yaml` like a user, and waits until all its pods are ready; for a
    /// cluster whose nodes run pods.
    ///
    /// # Errors
    /// If the API server rejects an object, or a pod does not become ready.
    pub fn deploy_ferrolb(&self) -> Result<()> {
        let bgp = self.facts.gobgp.is_some();
        self.shell(&format!("kubectl apply -f {}", ferrolb::rendered_file(bgp)))?;
        let workloads = ["deployment/controller", "daemonset/speaker"].into_iter();
        for workload in workloads.chain(bgp.then_some("daemonset/gobgpd")) {
            self.kubectl(&["-n", ferrolb::NAMESPACE, "rollout", "status", workload, ROLLOUT_MAX])?;
        }
        Ok(())
    }

    /// Starts the controller with the ServiceAccount `controller` on the control plane's host, and
    /// returns at once.
    ///
    /// # Errors
    /// If the controller already runs, or cannot be started.
    pub fn start_controller(&self, extra: &[&str]) -> Result<()> {
        self.start_controller_named(ferrolb::CONTROLLER, extra)
    }

    /// Starts an additional controller under its own name.
    ///
    /// # Errors
    /// See [`Self::start_controller`].
    pub fn start_controller_named(&self, name: &str, extra: &[&str]) -> Result<()> {
        ferrolb::start_controller(&self.state, &self.tools.programs.controller, name, extra)
            .map(drop)
    }

    /// Starts the speaker of `node` with the ServiceAccount `speaker`, and returns at once.
    ///
    /// # Errors
    /// See [`Self::start_controller`].
    pub fn start_speaker(&self, node: &str, extra: &[&str]) -> Result<()> {
        ferrolb::start_speaker(&self.state, &self.tools.programs.speaker, node, extra).map(drop)
    }

    /// Waits until a program replies with status 200 to a request for `path` on a port of its host.
    ///
    /// # Errors
    /// If the program does not reply within 30 s, or has ended; with the end of its log.
    pub fn wait_healthy(&self, process: &str, host: &str, port: u16, path: &str) -> Result<()> {
        let server = SocketAddr::new(self.address(host)?, port);
        let record = process::find(&self.state, process);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        netns::within(&self.state.name.namespace(host), || {
            wait::until(&format!("{process} is ready"), PROGRAM_READY_MAX, || {
                let page = runtime.block_on(page::fetch(server, path, REQUEST_MAX));
                if record.as_ref().is_none_or(|record| !record.is_alive()) {
                    return Ok(Some(false));
                }
                let page = page?;
                ensure!(
                    page.status == 200,
                    "{path} returned {}: {}",
                    page.status,
                    page.body.trim()
                );
                Ok(Some(true))
            })
        })?
        .and_then(|alive| if alive { Ok(()) } else { bail!("{process} has ended") })
        .with_context(|| self.log_tail(process))
    }

    /// Waits until the API server reports that it is ready.
    ///
    /// # Errors
    /// If the API server is not ready within a minute, or has ended; with the end of its log.
    pub fn wait_api_ready(&self) -> Result<()> {
        let server = self.record("kube-apiserver")?;
        self.api(async |client| api::wait_ready(&client, &server).await)
            .with_context(|| self.log_tail("kube-apiserver"))
    }

    /// Sends a signal to a process of the lab: `controller`, `speaker-node1`, `kube-proxy-node1`,
    /// `kube-apiserver`, `etcd`, ...
    ///
    /// # Errors
    /// If the process does not run.
    pub fn signal(&self, process: &str, signal: Signal) -> Result<()> {
        process::signal(&self.record(process)?, signal)
    }

    /// Sends a signal that ends a process, and waits for its end.
    ///
    /// # Errors
    /// If the process does not run, or still runs after 30 s.
    pub fn stop(&self, process: &str, signal: Signal) -> Result<()> {
        let record = self.record(process)?;
        process::signal(&record, signal)?;
        process::wait_end(&record, PROGRAM_READY_MAX)
    }

    /// Restarts an ended process with the same parameters.
    ///
    /// # Errors
    /// If the process still runs.
    pub fn restart(&self, process: &str) -> Result<()> {
        process::start(&self.state, self.record(process)?.launch).map(drop)
    }

    /// Returns the pid of a process of the lab.
    ///
    /// # Errors
    /// If the process does not run.
    pub fn pid(&self, process: &str) -> Result<i32> {
        let record = self.record(process)?;
        ensure!(record.is_alive(), "{process} is not running");
        Ok(record.pid)
    }

    /// Returns the complete log of a process of the lab.
    pub fn logs(&self, process: &str) -> String {
        process::log(&self.state, process)
    }

    /// Returns the lab's directory.
    pub fn state(&self) -> &LabState {
        &self.state
    }

    /// Returns the names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.facts.nodes).map(node_name).collect()
    }

    /// Returns the IP families of the cluster.
    pub fn families(&self) -> Families {
        self.facts.families
    }

    /// Returns the address of a host in the cluster's first family.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn address(&self, host: &str) -> Result<IpAddr> {
        Ok(self.facts.families.first(self.host(host)?.addresses()))
    }

    /// Keeps the lab running when this process ends; `cargo lab down` stops it.
    ///
    /// # Errors
    /// If the state file cannot be written.
    pub fn keep(&self) -> Result<()> {
        self.state.keep()
    }

    /// Stops the lab and removes everything that belongs to it.
    ///
    /// # Errors
    /// If a process, a namespace or a file cannot be removed.
    pub fn down(self) -> Result<()> {
        teardown::down_owned(&self.state)
    }

    fn record(&self, process: &str) -> Result<process::ProcessRecord> {
        process::find(&self.state, process)
            .with_context(|| format!("no process {process} was started in this lab"))
    }

    pub(crate) fn host(&self, name: &str) -> Result<topology::Host> {
        let host = self.facts.hosts().into_iter().find(|host| host.name == name);
        host.with_context(|| format!("{name} is not a host of this lab"))
    }

    pub(crate) fn log_tail(&self, process: &str) -> String {
        format!("the log of {process} ends:\n{}\n", run::last_lines(&self.logs(process), LOG_LINES))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let kept = self.state.facts().is_ok_and(|facts| facts.kept);
        if !kept
            && self.state.exists()
            && let Err(error) = teardown::down_owned(&self.state)
        {
            eprintln!("the lab {} could not be stopped: {error:#}", self.state.name);
        }
    }
}

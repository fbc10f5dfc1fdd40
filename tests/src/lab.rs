//! One lab, from `up` to `down`. Whoever holds a `Lab` owns it: dropped, it takes everything down, unless it was kept.

pub mod admin;
mod faults;
mod hosts;
mod objects;

pub use hosts::{Probing, kubectl_command};

use crate::cluster::{api, bgp, control_plane, docker, ferrolb, kubeadm, lease, nodes, wire};
use crate::setup::Tools;
use crate::setup::kubernetes::Version;
use crate::state::{Facts, State};
use crate::topology::{self, CONTROL_PLANE, Families, LabName, NODES_MAX, node_name};
use crate::traffic::page;
use crate::{netns, process, run, teardown, wait};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU8;
use std::time::Duration;

/// The port on which kube-proxy says whether it is healthy.
pub const PROXY_HEALTH_PORT: u16 = 10256;
/// How long a program may take to be ready, on a busy machine.
const PROGRAM_READY_MAX: Duration = Duration::from_secs(30);
/// How long pods may take to be ready, on a busy machine, as kubectl is told it.
const ROLLOUT_MAX: &str = "--timeout=120s";
/// How long one look at a program's health may take.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How many lines of a log tell why its program failed.
const LOG_LINES: usize = 20;

/// What kind of lab.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub nodes: u8,
    pub families: Families,
    pub kubernetes: Version,
    /// `nftables` or `iptables`; none: no node has a kube-proxy.
    pub proxy_mode: Option<String>,
    /// Each node says all the time that it lives, and Kubernetes notices when it does not; if not, all are taken for alive.
    pub leases: bool,
    /// Each node has a gobgpd, and there are hosts for routers, and one behind them.
    pub bgp: bool,
    /// Each node is a machine whose kubelet runs pods; kubeadm makes the cluster, with a kube-proxy in nftables mode, and the first is its control plane.
    pub kubeadm: bool,
    /// For a test's story: the API server writes down what FerroLB's accounts ask, and what Kubernetes itself runs yields, where no kubelet runs it.
    pub story: bool,
}

impl Options {
    /// Three nodes, dual stack, the newest Kubernetes, kube-proxy in nftables mode, no leases, no BGP.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: 3,
            families: Families::Dual,
            kubernetes: Version::Newest,
            proxy_mode: Some("nftables".to_owned()),
            leases: false,
            bgp: false,
            kubeadm: false,
            story: false,
        }
    }
}

/// A standing lab.
#[derive(Debug)]
pub struct Lab {
    state: State,
    facts: Facts,
    tools: Tools,
    pods: AtomicU8,
}

impl Lab {
    /// Raises a cluster without FerroLB. What a killed process left, under this name or another, is cleaned first.
    ///
    /// # Errors
    /// When a living process holds this name, or a part does not come up; then nothing is left behind.
    pub fn up(tools: &Tools, options: &Options) -> Result<Self> {
        let name: LabName = options.name.parse()?;
        ensure!((1..=NODES_MAX).contains(&options.nodes), "a lab has 1 to {NODES_MAX} nodes, not {}", options.nodes);
        teardown::sweep()?;
        teardown::down(&name)?;
        let facts = Facts {
            nodes: options.nodes,
            families: options.families,
            proxy_mode: options.proxy_mode.clone(),
            leases: options.leases,
            kubernetes: tools.kubernetes.clone(),
            version: options.kubernetes,
            gobgp: if options.bgp { Some(tools.gobgp.clone().context("a lab with BGP needs GoBGP")?) } else { None },
            docker: options.bgp && tools.docker,
            kubeadm: options.kubeadm,
            story: options.story,
            kept: false,
        };
        let state = State::create(&name, &facts)?;
        let lab = Self { state, facts, tools: tools.clone(), pods: AtomicU8::new(1) };
        lab.raise().with_context(|| format!("the lab {name} did not come up"))?;
        Ok(lab)
    }

    fn raise(&self) -> Result<()> {
        if self.facts.kubeadm {
            let parts = self.tools.kubeadm.as_ref().context("a kubeadm lab needs its parts")?;
            return kubeadm::raise(&self.state, &self.facts, parts, &self.tools.programs.lab);
        }
        wire::build(&self.state.name, &self.facts)?;
        if self.facts.docker {
            docker::raise(&self.state, &self.facts)?;
        }
        control_plane::start(&self.state, &self.facts)?;
        if let Some(gobgp) = &self.facts.gobgp {
            self.nodes().iter().try_for_each(|node| bgp::start(&self.state, gobgp, node).map(drop))?;
        }
        let version = self.facts.version.name()?;
        self.api(async |client| {
            api::wait_ready(&client).await?;
            nodes::register(&client, &self.facts, &version).await
        })
        .with_context(|| self.last_words("kube-apiserver"))?;
        if self.facts.leases {
            self.nodes()
                .iter()
                .try_for_each(|node| lease::start(&self.state, &self.tools.programs.lab, node).map(drop))?;
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

    /// Applies `deploy/` without its workloads, and makes the programs' own credentials.
    ///
    /// # Errors
    /// When the API server refuses something.
    pub fn install_ferrolb(&self) -> Result<()> {
        self.api(async |client| ferrolb::install(&client, &self.state).await)
    }

    /// [`Self::install_ferrolb`], the controller, a speaker on every node, and all of them ready.
    ///
    /// # Errors
    /// When a program does not become ready, with the last lines of its log.
    pub fn start_ferrolb(&self) -> Result<()> {
        self.install_ferrolb()?;
        self.start_controller(&[])?;
        let nodes = self.nodes();
        nodes.iter().try_for_each(|node| self.start_speaker(node, &[]))?;
        self.wait_healthy(ferrolb::CONTROLLER, CONTROL_PLANE, ferrolb::ADMIN_PORT, "/readyz")?;
        nodes
            .iter()
            .try_for_each(|node| self.wait_healthy(&ferrolb::speaker_name(node), node, ferrolb::ADMIN_PORT, "/readyz"))
    }

    /// Applies `deploy/install.yaml` as a user does, and waits until every pod of it is ready: for a cluster whose nodes run pods.
    ///
    /// # Errors
    /// When the API server refuses something, or a pod does not become ready.
    pub fn deploy_ferrolb(&self) -> Result<()> {
        let bgp = self.facts.gobgp.is_some();
        self.shell(&format!("kubectl apply -f {}", ferrolb::rendered_file(bgp)))?;
        let workloads = ["deployment/controller", "daemonset/speaker"].into_iter();
        for workload in workloads.chain(bgp.then_some("daemonset/gobgpd")) {
            self.kubectl(&["-n", ferrolb::NAMESPACE, "rollout", "status", workload, ROLLOUT_MAX])?;
        }
        Ok(())
    }

    /// Starts the controller, under the ServiceAccount `controller`, on the control plane's host. It is not waited for.
    ///
    /// # Errors
    /// When it runs already, or cannot be started.
    pub fn start_controller(&self, extra: &[&str]) -> Result<()> {
        self.start_controller_named(ferrolb::CONTROLLER, extra)
    }

    /// Starts one more controller under a name of its own.
    ///
    /// # Errors
    /// As [`Self::start_controller`].
    pub fn start_controller_named(&self, name: &str, extra: &[&str]) -> Result<()> {
        ferrolb::start_controller(&self.state, &self.tools.programs.controller, name, extra).map(drop)
    }

    /// Starts the speaker of `node`, under the ServiceAccount `speaker`. It is not waited for.
    ///
    /// # Errors
    /// As [`Self::start_controller`].
    pub fn start_speaker(&self, node: &str, extra: &[&str]) -> Result<()> {
        ferrolb::start_speaker(&self.state, &self.tools.programs.speaker, node, extra).map(drop)
    }

    /// Waits until a program answers 200 on `path` of a port of its host.
    ///
    /// # Errors
    /// When it does not within 30 s, or has ended; with the last lines of its log.
    pub fn wait_healthy(&self, process: &str, host: &str, port: u16, path: &str) -> Result<()> {
        let server = SocketAddr::new(self.address(host)?, port);
        let record = process::find(&self.state, process);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        netns::within(&self.state.name.namespace(host), || {
            wait::until(&format!("{process} is ready"), PROGRAM_READY_MAX, || {
                let page = runtime.block_on(page::fetch(server, path, LOOK_MAX));
                if record.as_ref().is_none_or(|record| !record.is_alive()) {
                    return Ok(Some(false));
                }
                let page = page?;
                ensure!(page.status == 200, "{path} says {}: {}", page.status, page.body.trim());
                Ok(Some(true))
            })
        })?
        .and_then(|alive| if alive { Ok(()) } else { bail!("{process} has ended") })
        .with_context(|| self.last_words(process))
    }

    /// Sends a signal to a process of the lab: `controller`, `speaker-node1`, `kube-proxy-node1`, `kube-apiserver`, `etcd`, ...
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, process: &str, signal: Signal) -> Result<()> {
        process::signal(&self.record(process)?, signal)
    }

    /// Sends a signal that ends a process, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not run, or goes on after 30 s.
    pub fn stop(&self, process: &str, signal: Signal) -> Result<()> {
        let record = self.record(process)?;
        process::signal(&record, signal)?;
        process::wait_end(&record, PROGRAM_READY_MAX)
    }

    /// Starts a process that has ended again, as it was started before.
    ///
    /// # Errors
    /// When it still runs.
    pub fn restart(&self, process: &str) -> Result<()> {
        process::start(&self.state, self.record(process)?.launch).map(drop)
    }

    /// The pid of a process of the lab.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, process: &str) -> Result<i32> {
        let record = self.record(process)?;
        ensure!(record.is_alive(), "{process} does not run");
        Ok(record.pid)
    }

    /// All that a process of the lab has said so far.
    pub fn logs(&self, process: &str) -> String {
        process::log(&self.state, process)
    }

    /// The lab's folder.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.facts.nodes).map(node_name).collect()
    }

    /// The IP families of its cluster.
    pub fn families(&self) -> Families {
        self.facts.families
    }

    /// The address of a host, of the cluster's first family.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn address(&self, host: &str) -> Result<IpAddr> {
        Ok(self.facts.families.first(self.host(host)?.addresses()))
    }

    /// Leaves the lab standing when this process ends; `cargo lab down` takes it down.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn keep(&self) -> Result<()> {
        self.state.keep()
    }

    /// Takes everything down, and says so if something stays.
    ///
    /// # Errors
    /// When a process, a namespace or a file cannot be removed.
    pub fn down(self) -> Result<()> {
        teardown::down_owned(&self.state)
    }

    fn record(&self, process: &str) -> Result<process::Record> {
        process::find(&self.state, process).with_context(|| format!("nothing called {process} was started in this lab"))
    }

    pub(crate) fn host(&self, name: &str) -> Result<topology::Host> {
        let host = self.facts.hosts().into_iter().find(|host| host.name == name);
        host.with_context(|| format!("{name} is no host of this lab"))
    }

    pub(crate) fn last_words(&self, process: &str) -> String {
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
            eprintln!("the lab {} could not be taken down: {error:#}", self.state.name);
        }
    }
}

//! Actions on the hosts of a lab: run programs, fetch pages, probe, and find the owner of an
//! address.

use super::Lab;
use crate::cluster::bgp;
use crate::cluster::groups::ClientGroup;
use crate::cluster::kubeadm::machine;
use crate::setup::{GARBAGE_COLLECTION, installers, repository};
use crate::state::LabState;
use crate::topology::CLIENT;
use crate::traffic::long_lived::{self, ConnectionOutcome};
use crate::traffic::page::{self, Page};
use crate::traffic::probe::{self, ProbeReport, Transport};
use crate::{netns, run};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Maximum time to fetch a page, and to wait for an ARP or NDP reply.
const PAGE_MAX: Duration = Duration::from_secs(2);

/// A running probe; its result is available when it ends.
#[derive(Debug)]
pub struct RunningProbe<T = ProbeReport> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<T>>,
}

impl<T> RunningProbe<T> {
    /// Waits for the end of the probe and returns its result.
    ///
    /// # Errors
    /// If the probe could not start.
    pub fn finish(self) -> Result<T> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Ends the probe and returns its result.
    ///
    /// # Errors
    /// If the probe could not start.
    pub fn stop(self) -> Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

impl Lab {
    /// Runs `work` in the namespace of a host or pod, on a thread of its own.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn within<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
        netns::within(&self.state.name.namespace(host), work)
    }

    /// Runs a program on a host to completion and returns its output.
    ///
    /// # Errors
    /// If the program does not exist or fails, with the end of its output.
    pub fn exec(&self, host: &str, command: &[&str]) -> Result<String> {
        if self.facts.is_machine(host) {
            return run::run(machine::command(&self.state, host)?.args(command));
        }
        self.within(host, || run::run(&mut exec_command(command)?))?
    }

    /// Runs a program on a host to completion, with any exit status.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn try_exec(&self, host: &str, command: &[&str]) -> Result<Output> {
        if self.facts.is_machine(host) {
            return Ok(machine::command(&self.state, host)?.args(command).output()?);
        }
        self.within(host, || Ok(exec_command(command)?.output()?))?
    }

    /// Runs kubectl on the client's host as the administrator.
    ///
    /// # Errors
    /// If kubectl fails, with the end of its output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.within(CLIENT, || run::run(kubectl_command(&self.state)?.args(args)))?
    }

    /// Runs `kubectl ferrolb` on the client's host as the administrator. Exit code 1 is no error:
    /// the output explains a problem of a Service.
    ///
    /// # Errors
    /// If the command cannot read the objects, with its messages.
    pub fn kubectl_ferrolb(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.tools.programs.cli);
        command.args(args).env("KUBECONFIG", self.state.kubeconfig());
        let output = self.within(CLIENT, || command.output())??;
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "kubectl ferrolb failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).context("kubectl ferrolb printed no UTF-8")
    }

    /// Runs shell commands in the repository on the client's host, like an administrator. PATH
    /// contains kubectl with FerroLB's plugin, and Helm; Helm uses directories of the lab.
    ///
    /// # Errors
    /// If a command fails, with the end of its output; the commands after it do not run.
    pub fn shell(&self, commands: &str) -> Result<String> {
        let mut shell = self.client_command("sh")?;
        self.within(CLIENT, || run::run(shell.args(["-euc", commands])))?
    }

    /// Returns a command that runs `program` like an administrator, with the environment of
    /// [`Self::shell`]. The caller starts it on a host.
    ///
    /// # Errors
    /// If Helm does not build, or the lab is incomplete.
    pub fn client_command(&self, program: &str) -> Result<Command> {
        let cli = Command::new(&self.tools.programs.cli);
        let programs = [kubectl_command(&self.state)?, installers::helm()?, cli];
        let mut command = installers::command_with(program, &programs)?;
        command.current_dir(repository()).env("KUBECONFIG", self.state.kubeconfig());
        command.envs([GARBAGE_COLLECTION]);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.state.file("helm"));
        }
        Ok(command)
    }

    /// Runs a command of GoBGP's command line with the gobgpd of a host.
    ///
    /// # Errors
    /// If the command fails, with the end of its output; or if the lab has no BGP.
    pub fn gobgp(&self, host: &str, args: &[&str]) -> Result<String> {
        run::run(&mut self.gobgp_command(host, args)?)
    }

    pub(crate) fn gobgp_command(&self, host: &str, args: &[&str]) -> Result<Command> {
        let gobgp = self.facts.gobgp.as_ref().context("this lab has no BGP")?;
        let target = format!("unix://{}", bgp::socket(&self.state, host).display());
        let mut command = Command::new(gobgp.join("gobgp"));
        command.args(["--target", &target]).args(args);
        Ok(command)
    }

    /// Fetches `path` of a server from a host.
    ///
    /// # Errors
    /// If there is no page within two seconds.
    pub fn http_get(&self, from: &str, server: SocketAddr, path: &str) -> Result<Page> {
        self.http_get_within(from, server, path, PAGE_MAX)
    }

    /// Fetches a page like [`Self::http_get`], with another time limit.
    ///
    /// # Errors
    /// If there is no page within the limit.
    pub fn http_get_within(
        &self,
        from: &str,
        server: SocketAddr,
        path: &str,
        limit: Duration,
    ) -> Result<Page> {
        self.within(from, || block_on(page::fetch(server, path, limit))?)?
    }

    /// Gives this process as much processor time as a machine of the lab, until the result is
    /// dropped.
    ///
    /// # Errors
    /// Without root permissions.
    pub fn join_client_group(&self) -> Result<ClientGroup> {
        ClientGroup::join(&self.state.name)
    }

    /// Starts a TCP probe of a server from the client's host.
    pub fn start_probe(
        &self,
        server: SocketAddr,
        length: Duration,
        step: Duration,
    ) -> RunningProbe {
        self.start_probe_over(Transport::Tcp, server, length, step)
    }

    /// Starts a probe of a server from the client's host, over this transport.
    pub fn start_probe_over(
        &self,
        transport: Transport,
        server: SocketAddr,
        length: Duration,
        step: Duration,
    ) -> RunningProbe {
        self.start_on(CLIENT, async move |stop| {
            Ok(probe::probe(transport, server, length, step, stop).await)
        })
    }

    /// Starts a TCP probe of a server from a host.
    pub fn start_probe_from(
        &self,
        host: &str,
        server: SocketAddr,
        length: Duration,
        step: Duration,
    ) -> RunningProbe {
        self.start_on(host, async move |stop| {
            Ok(probe::probe(Transport::Tcp, server, length, step, stop).await)
        })
    }

    /// Starts a long-lived connection from the client's host to a pod's server, for at most
    /// `length`.
    pub fn start_long_lived(
        &self,
        server: SocketAddr,
        length: Duration,
    ) -> RunningProbe<ConnectionOutcome> {
        self.start_on(CLIENT, async move |stop| long_lived::run(server, length, stop).await)
    }

    fn start_on<T: Send + 'static>(
        &self,
        host: &str,
        work: impl AsyncFnOnce(&AtomicBool) -> Result<T> + Send + 'static,
    ) -> RunningProbe<T> {
        let (namespace, stop) = (self.state.name.namespace(host), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace)?;
            block_on(work(&stopped))?
        });
        RunningProbe { stop, thread }
    }

    /// Returns the name of the host that replies for `address` on the client's network segment, or
    /// `None` without a reply. The client's own neighbor entry is deleted first, so that the kernel
    /// sends a new request.
    ///
    /// # Errors
    /// If `ip` fails, or if the replying host is not a host of the lab.
    pub fn owner_of(&self, address: IpAddr) -> Result<Option<String>> {
        let address = address.to_string();
        self.exec(CLIENT, &["ip", "neigh", "flush", "to", &address])?;
        // A datagram to the discard port makes the kernel resolve the address; its delivery does
        // not matter.
        self.within(CLIENT, || {
            let bind = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = std::net::UdpSocket::bind(bind)?;
            socket.send_to(b"?", (address.as_str(), 9))
        })??;
        let entry =
            crate::wait::until("an ARP or NDP reply", PAGE_MAX, || self.neighbor_mac(&address));
        let Ok(mac) = entry else { return Ok(None) };
        let host = self.facts.hosts().into_iter().find(|host| host.mac() == mac);
        host.map(|host| Some(host.name))
            .ok_or_else(|| anyhow!("{mac} replies for {address}, and is not a host of the lab"))
    }

    /// Returns the hardware address in the client's neighbor table, if there is one.
    fn neighbor_mac(&self, address: &str) -> Result<Option<String>> {
        let table = self.exec(CLIENT, &["ip", "-json", "neigh", "show", "to", address])?;
        let table: Vec<Value> =
            serde_json::from_str(&table).context("`ip -json neigh` did not print JSON")?;
        Ok(table.iter().find_map(|entry| Some(entry["lladdr"].as_str()?.to_owned())))
    }
}

/// Returns a command that runs kubectl with a lab's kubeconfig, without arguments.
///
/// # Errors
/// If the lab is incomplete.
pub fn kubectl_command(state: &LabState) -> Result<Command> {
    let mut command = Command::new(state.facts()?.kubernetes.join("kubectl"));
    command.env("KUBECONFIG", state.kubeconfig()).envs([GARBAGE_COLLECTION]);
    Ok(command)
}

fn exec_command(command: &[&str]) -> Result<Command> {
    let (program, args) = command.split_first().context("no command was given")?;
    let mut built = Command::new(program);
    built.args(args);
    Ok(built)
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

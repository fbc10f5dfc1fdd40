//! What a lab's user does on its hosts: run programs, fetch pages, probe, and ask who answers on the wire.

use super::Lab;
use crate::cluster::bgp;
use crate::cluster::kubeadm::machine;
use crate::setup::{installers, repository};
use crate::state::State;
use crate::topology::CLIENT;
use crate::traffic::lasting::{self, Fate};
use crate::traffic::page::{self, Page};
use crate::traffic::probe::{self, Report, Transport};
use crate::{netns, run};
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a page may take.
const PAGE_MAX: Duration = Duration::from_secs(2);

/// A probe under way, and what it will have found.
#[derive(Debug)]
pub struct Probing<T = Report> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<T>>,
}

impl<T> Probing<T> {
    /// Waits for the probe's end.
    ///
    /// # Errors
    /// When it could not start.
    pub fn finish(self) -> Result<T> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Ends the probe.
    ///
    /// # Errors
    /// When it could not start.
    pub fn stop(self) -> Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

impl Lab {
    /// Does `work` inside the namespace of a host or pod, on a thread of its own.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn within<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
        netns::within(&self.state.name.namespace(host), work)
    }

    /// Runs a program on a host to its end; what it printed.
    ///
    /// # Errors
    /// When it is not there, or fails: with its last words.
    pub fn exec(&self, host: &str, command: &[&str]) -> Result<String> {
        if self.facts.is_machine(host) {
            return run::run(machine::command(&self.state, host)?.args(command));
        }
        self.within(host, || run::run(&mut spoken(command)?))?
    }

    /// Runs a program on a host to its end, whatever that is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_exec(&self, host: &str, command: &[&str]) -> Result<Output> {
        if self.facts.is_machine(host) {
            return Ok(machine::command(&self.state, host)?.args(command).output()?);
        }
        self.within(host, || Ok(spoken(command)?.output()?))?
    }

    /// Runs kubectl on the client's host, as the administrator.
    ///
    /// # Errors
    /// When it fails: with its last words.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.within(CLIENT, || run::run(kubectl_command(&self.state)?.args(args)))?
    }

    /// Runs commands in the repository on the client's host, as an administrator types them: kubectl is there, and Helm with folders of the lab's own.
    ///
    /// # Errors
    /// When one fails, with its last words; those after it are not run.
    pub fn shell(&self, commands: &str) -> Result<String> {
        let programs =
            [kubectl_command(&self.state)?, installers::helm()?].map(|command| PathBuf::from(command.get_program()));
        let folders = programs.iter().filter_map(|program| program.parent()).map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)))?;
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", commands])
            .current_dir(repository())
            .env("PATH", path)
            .env("KUBECONFIG", self.state.kubeconfig());
        for place in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            shell.env(place, self.state.file("helm"));
        }
        self.within(CLIENT, || run::run(&mut shell))?
    }

    /// Asks or tells the gobgpd of a host by its own command line.
    ///
    /// # Errors
    /// When it fails: with its last words; or the lab was raised without BGP.
    pub fn gobgp(&self, host: &str, args: &[&str]) -> Result<String> {
        let gobgp = self.facts.gobgp.as_ref().context("this lab was raised without BGP")?;
        let target = format!("unix://{}", bgp::socket(&self.state, host).display());
        run::run(Command::new(gobgp.join("gobgp")).args(["--target", &target]).args(args))
    }

    /// Fetches `path` of a server from a host.
    ///
    /// # Errors
    /// When there is no page within two seconds.
    pub fn http_get(&self, from: &str, server: SocketAddr, path: &str) -> Result<Page> {
        self.http_get_within(from, server, path, PAGE_MAX)
    }

    /// [`Self::http_get`] with a limit of its own.
    ///
    /// # Errors
    /// When there is no page within that.
    pub fn http_get_within(&self, from: &str, server: SocketAddr, path: &str, limit: Duration) -> Result<Page> {
        self.within(from, || block_on(page::fetch(server, path, limit))?)?
    }

    /// Starts to probe a server by TCP from the client's host.
    pub fn start_probe(&self, server: SocketAddr, length: Duration, step: Duration) -> Probing {
        self.start_probe_by(Transport::Tcp, server, length, step)
    }

    /// Starts to probe a server from the client's host.
    pub fn start_probe_by(
        &self,
        transport: Transport,
        server: SocketAddr,
        length: Duration,
        step: Duration,
    ) -> Probing {
        self.start_on(CLIENT, async move |stop| Ok(probe::probe(transport, server, length, step, stop).await))
    }

    /// Starts to probe a server by TCP from a host.
    pub fn start_probe_from(&self, host: &str, server: SocketAddr, length: Duration, step: Duration) -> Probing {
        self.start_on(host, async move |stop| Ok(probe::probe(Transport::Tcp, server, length, step, stop).await))
    }

    /// Starts a connection from the client's host to a pod's server, which lasts for `length` if it can.
    pub fn start_lasting(&self, server: SocketAddr, length: Duration) -> Probing<Fate> {
        self.start_on(CLIENT, async move |stop| lasting::last(server, length, stop).await)
    }

    fn start_on<T: Send + 'static>(
        &self,
        host: &str,
        work: impl AsyncFnOnce(&AtomicBool) -> Result<T> + Send + 'static,
    ) -> Probing<T> {
        let (namespace, stop) = (self.state.name.namespace(host), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace)?;
            block_on(work(&stopped))?
        });
        Probing { stop, thread }
    }

    /// The name of the host that answers for `address` on the client's wire: the client's own entry is thrown away first, then asked for anew.
    /// None when nobody answers.
    ///
    /// # Errors
    /// When `ip` fails, or one answers that is no host of the lab.
    pub fn who_answers(&self, address: IpAddr) -> Result<Option<String>> {
        let address = address.to_string();
        self.exec(CLIENT, &["ip", "neigh", "flush", "to", &address])?;
        // A datagram to the discard port makes the kernel resolve the address; what becomes of it does not matter.
        self.within(CLIENT, || {
            let bind = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = std::net::UdpSocket::bind(bind)?;
            socket.send_to(b"?", (address.as_str(), 9))
        })??;
        let entry = crate::wait::until("an answer on the wire", PAGE_MAX, || self.neighbour(&address));
        let Ok(mac) = entry else { return Ok(None) };
        let host = self.facts.hosts().into_iter().find(|host| host.mac() == mac);
        host.map(|host| Some(host.name))
            .ok_or_else(|| anyhow!("{address} is answered by {mac}, which is no host of the lab"))
    }

    /// The hardware address in the client's neighbour table, if it is known.
    fn neighbour(&self, address: &str) -> Result<Option<String>> {
        let table = self.exec(CLIENT, &["ip", "-json", "neigh", "show", "to", address])?;
        let table: Vec<Value> = serde_json::from_str(&table).context("`ip -json neigh` did not print JSON")?;
        Ok(table.iter().find_map(|entry| Some(entry["lladdr"].as_str()?.to_owned())))
    }
}

/// kubectl with a lab's settings, ready for its arguments.
///
/// # Errors
/// When the lab is incomplete.
pub fn kubectl_command(state: &State) -> Result<Command> {
    let mut command = Command::new(state.facts()?.kubernetes.join("kubectl"));
    command.env("KUBECONFIG", state.kubeconfig());
    Ok(command)
}

fn spoken(command: &[&str]) -> Result<Command> {
    let (program, args) = command.split_first().context("no command was given")?;
    let mut spoken = Command::new(program);
    spoken.args(args);
    Ok(spoken)
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

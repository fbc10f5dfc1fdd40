//! Real routers on the lab's hosts: FRR, BIRD and GoBGP, each with its own configuration and
//! sockets in the lab's directory, and their state in one common form. They are processes of the
//! lab, or containers if the lab's hosts for routers are containers, and end with the lab.

mod bird;
mod container;
mod frr;
mod gobgp;
mod peering;
mod route;

pub use peering::{BgpNeighbor, Peering};
pub use route::{BgpRoute, BgpSession};

use crate::cluster::docker;
use crate::process::{self, Launch};
use crate::state::LabState;
use crate::{Lab, run, wait};
use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{fmt, fs};

/// Maximum time until a router replies to commands, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(15);
/// Maximum time for a router to stop.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Kind of router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterKind {
    Frr,
    Bird,
    Gobgp,
}

impl RouterKind {
    pub const ALL: [Self; 3] = [Self::Frr, Self::Bird, Self::Gobgp];

    /// Returns whether the router installs routes in its kernel, which then forwards. GoBGP does
    /// not.
    pub fn forwards(self) -> bool {
        self != Self::Gobgp
    }

    /// Returns the default local preference that the router shows for a path from another AS;
    /// `None` if it shows none.
    pub fn default_local_pref(self) -> Option<u32> {
        (self == Self::Bird).then_some(100)
    }

    /// Returns the configuration for `peering` in the language of this kind of router.
    pub fn config(self, peering: &Peering) -> String {
        match self {
            Self::Frr => frr::config(peering),
            Self::Bird => bird::config(peering),
            Self::Gobgp => gobgp::config(peering),
        }
    }
}

/// A started router.
#[derive(Debug)]
pub struct Router<'a> {
    lab: &'a Lab,
    kind: RouterKind,
    host: String,
    port: u16,
}

impl fmt::Display for Router<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {}", self.kind, self.host)
    }
}

impl<'a> Router<'a> {
    /// Starts a router on a host (`tor1`, `tor2`, `tor3`, or any other) and waits until it replies
    /// to commands.
    ///
    /// # Errors
    /// If a router of this kind already runs on the host, or rejects the configuration.
    pub fn start(lab: &'a Lab, kind: RouterKind, host: &str, config: &str) -> Result<Self> {
        Self::start_on(lab, kind, host, (peering::BGP_PORT, config))
    }

    /// Starts a router like [`Self::start`], with the configuration that most scenarios need.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_with_peering(
        lab: &'a Lab,
        kind: RouterKind,
        host: &str,
        peering: &Peering,
    ) -> Result<Self> {
        Self::start_on(lab, kind, host, (peering.port, &kind.config(peering)))
    }

    fn start_on(
        lab: &'a Lab,
        kind: RouterKind,
        host: &str,
        (port, config): (u16, &str),
    ) -> Result<Self> {
        let router = Self { lab, kind, host: host.to_owned(), port };
        // If a bgpd finds the socket of an ended zebra, it connects to the new zebra only after 10
        // s, and never requests BFD for earlier sessions.
        if router.folder().exists() {
            fs::remove_dir_all(router.folder())?;
        }
        fs::create_dir_all(router.folder())?;
        fs::write(router.config_file(), config)?;
        for launch in router.launches()? {
            process::start(lab.state(), launch)?;
        }
        router.wait_ready()?;
        Ok(router)
    }

    /// Stops the router by SIGTERM, so that the router closes its sessions.
    ///
    /// # Errors
    /// If the router does not run, or does not stop.
    pub fn stop(self) -> Result<()> {
        let records = self
            .launches()?
            .into_iter()
            .rev()
            .filter_map(|launch| process::find(self.state(), &launch.name));
        for record in records {
            process::signal(&record, Signal::TERM)?;
            process::wait_end(&record, STOP_MAX)?;
            process::remove_record(self.state(), &record.launch.name);
        }
        Ok(())
    }

    /// Kills the BGP daemon, or its container, and restarts it.
    ///
    /// # Errors
    /// If the daemon does not run, or does not end.
    pub fn crash(&self) -> Result<()> {
        let daemon = self.launches()?.pop().context("the router has no daemon")?.name;
        if self.in_container()? {
            let record = process::find(self.state(), &daemon)
                .with_context(|| format!("{self} does not run"))?;
            run::run(docker::command(self.state()).args(["kill", &daemon]))?;
            process::wait_end(&record, STOP_MAX)?;
        } else {
            self.lab.stop(&daemon, Signal::KILL)?;
        }
        self.lab.restart(&daemon)
    }

    pub fn kind(&self) -> RouterKind {
        self.kind
    }

    /// Runs a command of the router's own command line and returns the output. For FRR, each of
    /// `words` is a line for `vtysh -c`; for BIRD and GoBGP, `words` are arguments.
    ///
    /// # Errors
    /// If the router does not run, or rejects the command.
    pub fn run_command(&self, words: &[&str]) -> Result<String> {
        run::run(&mut self.command(words)?)
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        Ok(match self.kind {
            kind if self.in_container()? => {
                container::command(self.state(), kind, &self.host, words)
            }
            RouterKind::Frr => frr::command(&self.folder(), words),
            RouterKind::Bird => bird::command(&self.folder(), words),
            RouterKind::Gobgp => self.lab.gobgp_command(&self.host, words)?,
        })
    }

    /// Returns the paths that the router received from its neighbors, sorted. A prefix has one path
    /// for each neighbor that advertises it.
    ///
    /// # Errors
    /// If the router does not run, or the output has an unexpected form.
    pub fn routes(&self) -> Result<Vec<BgpRoute>> {
        let mut routes = match self.kind {
            RouterKind::Frr => frr::routes(|words| self.run_command(words)),
            RouterKind::Bird => bird::routes(&self.run_command(&["show", "route", "all"])?),
            RouterKind::Gobgp => gobgp::routes(|words| self.run_command(words)),
        }
        .with_context(|| format!("cannot read the routes of {self}"))?;
        routes.sort();
        Ok(routes)
    }

    /// Returns the sessions of the router, sorted by neighbor.
    ///
    /// # Errors
    /// See [`Self::routes`].
    pub fn sessions(&self) -> Result<Vec<BgpSession>> {
        let mut sessions = match self.kind {
            RouterKind::Frr => frr::sessions(&self.run_command(&["show bgp neighbors json"])?),
            RouterKind::Bird => bird::sessions(&self.run_command(&["show", "protocols", "all"])?),
            RouterKind::Gobgp => gobgp::sessions(&self.run_command(&["-j", "neighbor"])?),
        }
        .with_context(|| format!("cannot read the sessions of {self}"))?;
        sessions.sort();
        Ok(sessions)
    }

    /// Returns the gateways to which the router's kernel forwards traffic for `address`; empty if
    /// the kernel has no route to the address.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn forwards(&self, address: IpAddr) -> Result<BTreeSet<IpAddr>> {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let words = ["ip", "-json", family, "route", "show", "exact", &address.to_string()];
        let table: Vec<Value> = serde_json::from_str(&self.lab.exec(&self.host, &words)?)?;
        let paths = table.iter().flat_map(|route| {
            route["nexthops"]
                .as_array()
                .into_iter()
                .flatten()
                .chain(std::iter::once(route))
                .collect::<Vec<_>>()
        });
        Ok(paths.filter_map(|path| path["gateway"].as_str()?.parse().ok()).collect())
    }

    fn launches(&self) -> Result<Vec<Launch>> {
        Ok(match self.kind {
            kind if self.in_container()? => {
                vec![container::launch(
                    self.state(),
                    kind,
                    &self.host,
                    &self.config_file(),
                    self.port,
                )]
            }
            RouterKind::Frr => frr::launches(&self.host, &self.folder(), self.port),
            RouterKind::Bird => vec![bird::launch(&self.host, &self.folder())],
            RouterKind::Gobgp => {
                vec![gobgp::launch(self.state(), &self.host, &self.config_file())?]
            }
        })
    }

    fn wait_ready(&self) -> Result<()> {
        let records: Vec<_> = self
            .launches()?
            .iter()
            .filter_map(|launch| process::find(self.state(), &launch.name))
            .collect();
        let names = || records.iter().map(|record| record.launch.name.as_str());
        wait::until(&format!("{self} replies"), READY_MAX, || {
            self.sessions()?;
            Ok(Some(()))
        })
        .with_context(|| names().map(|name| self.lab.log_tail(name)).collect::<String>())
    }

    fn in_container(&self) -> Result<bool> {
        Ok(self.state().facts()?.is_container(&self.lab.host(&self.host)?))
    }

    fn state(&self) -> &LabState {
        self.lab.state()
    }

    fn folder(&self) -> PathBuf {
        self.state().file(&format!("router-{}", self.host))
    }

    fn config_file(&self) -> PathBuf {
        self.folder().join(CONFIG_FILE)
    }
}

/// Returns functions for a shell, so that the commands `vtysh` and `birdc` reach the router of a
/// host as they reach a router with its default paths.
///
/// # Errors
/// If there is no such host.
pub fn shell_functions(lab: &Lab, host: &str) -> Result<String> {
    let mut functions = String::new();
    for (name, kind) in [("vtysh", RouterKind::Frr), ("birdc", RouterKind::Bird)] {
        let router = Router { lab, kind, host: host.to_owned(), port: peering::BGP_PORT };
        let command = router.command(&[])?;
        let mut words = vec!["env".to_owned()];
        words.extend(command.get_envs().filter_map(|(variable, value)| {
            Some(format!("{}={}", variable.display(), value?.display()))
        }));
        let program = std::iter::once(command.get_program()).chain(command.get_args());
        words.extend(program.map(|word| word.display().to_string()));
        functions += &format!("{name}() {{ {} \"$@\"; }}\n", words.join(" "));
    }
    Ok(functions)
}

/// Name of a router's configuration file in its directory.
const CONFIG_FILE: &str = "router.conf";

//! Real routers on the lab's hosts: FRR, BIRD and GoBGP, each with its own configuration and sockets in the lab's folder, and what each of
//! them sees, in one form. They are processes of the lab, or containers where its hosts for routers are some, and end with it.

mod bird;
mod container;
mod frr;
mod gobgp;
mod peering;
mod route;

pub use peering::{Neighbour, Peering};
pub use route::{Route, Session};

use crate::cluster::docker;
use crate::process::{self, Launch};
use crate::state::State;
use crate::{Lab, run, wait};
use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, fs};

/// How long a router may take until it can be asked, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(15);
/// How long a router may take to stop.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Which router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Frr,
    Bird,
    Gobgp,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Frr, Self::Bird, Self::Gobgp];

    /// Whether it tells its kernel, which then forwards; GoBGP does not.
    pub fn forwards(self) -> bool {
        self != Self::Gobgp
    }

    /// The local preference that it shows of a path from another AS which nobody gave one.
    pub fn local_pref_outside(self) -> Option<u32> {
        (self == Self::Bird).then_some(100)
    }

    /// A configuration, in this router's own language.
    pub fn config(self, peering: &Peering) -> String {
        match self {
            Self::Frr => frr::config(peering),
            Self::Bird => bird::config(peering),
            Self::Gobgp => gobgp::config(peering),
        }
    }
}

/// A router that was started.
#[derive(Debug)]
pub struct Router<'a> {
    lab: &'a Lab,
    kind: Kind,
    host: String,
    port: u16,
}

impl fmt::Display for Router<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {}", self.kind, self.host)
    }
}

impl<'a> Router<'a> {
    /// Starts a router on a host: `tor1`, `tor2`, `tor3`, or any other. It can be asked from then on.
    ///
    /// # Errors
    /// When one of its kind runs there already, or it does not understand its configuration.
    pub fn start(lab: &'a Lab, kind: Kind, host: &str, config: &str) -> Result<Self> {
        Self::start_on(lab, kind, host, (peering::BGP_PORT, config))
    }

    /// [`Self::start`] with the configuration that most stories need, on its port.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn with(lab: &'a Lab, kind: Kind, host: &str, peering: &Peering) -> Result<Self> {
        Self::start_on(lab, kind, host, (peering.port, &kind.config(peering)))
    }

    fn start_on(lab: &'a Lab, kind: Kind, host: &str, (port, config): (u16, &str)) -> Result<Self> {
        let router = Self { lab, kind, host: host.to_owned(), port };
        // A bgpd that finds the socket of a zebra that has ended is not with the next one for 10 s, and never asks for the BFD of sessions that came before.
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

    /// Ends the router, as its operator would: sessions are closed.
    ///
    /// # Errors
    /// When it does not run, or goes on.
    pub fn stop(self) -> Result<()> {
        let records = self.launches()?.into_iter().rev().filter_map(|launch| process::find(self.state(), &launch.name));
        for record in records {
            process::signal(&record, Signal::TERM)?;
            process::wait_end(&record, STOP_MAX)?;
            process::forget(self.state(), &record.launch.name);
        }
        Ok(())
    }

    /// Kills the daemon that speaks BGP, or the container that it is in, and starts it again.
    ///
    /// # Errors
    /// When it does not run, or does not die.
    pub fn crash(&self) -> Result<()> {
        let daemon = self.launches()?.pop().context("it has a daemon")?.name;
        if self.in_container()? {
            let record = process::find(self.state(), &daemon).with_context(|| format!("{self} does not run"))?;
            run::run(docker::command(self.state()).args(["kill", &daemon]))?;
            process::wait_end(&record, STOP_MAX)?;
        } else {
            self.lab.stop(&daemon, Signal::KILL)?;
        }
        self.lab.restart(&daemon)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What its own command line says: to `vtysh -c` each of the words is a line, `birdc` and `gobgp` take them as arguments.
    ///
    /// # Errors
    /// When it does not run, or does not understand.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        match self.kind {
            kind if self.in_container()? => run::run(&mut container::ask(self.state(), kind, &self.host, words)),
            Kind::Frr => run::run(&mut frr::ask(&self.folder(), words)),
            Kind::Bird => run::run(&mut bird::ask(&self.folder(), words)),
            Kind::Gobgp => self.lab.gobgp(&self.host, words),
        }
    }

    /// The paths that it has from its neighbours, sorted: of one prefix as many as have announced it.
    ///
    /// # Errors
    /// When it does not run, or says what nobody expects.
    pub fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = match self.kind {
            Kind::Frr => frr::routes(|words| self.ask(words)),
            Kind::Bird => bird::routes(&self.ask(&["show", "route", "all"])?),
            Kind::Gobgp => gobgp::routes(|words| self.ask(words)),
        }
        .with_context(|| format!("the routes of {self}"))?;
        routes.sort();
        Ok(routes)
    }

    /// Its sessions, by neighbour.
    ///
    /// # Errors
    /// As [`Self::routes`].
    pub fn sessions(&self) -> Result<Vec<Session>> {
        let mut sessions = match self.kind {
            Kind::Frr => frr::sessions(&self.ask(&["show bgp neighbors json"])?),
            Kind::Bird => bird::sessions(&self.ask(&["show", "protocols", "all"])?),
            Kind::Gobgp => gobgp::sessions(&self.ask(&["-j", "neighbor"])?),
        }
        .with_context(|| format!("the sessions of {self}"))?;
        sessions.sort();
        Ok(sessions)
    }

    /// The gateways to which its kernel forwards what is for `address`; none where it has no such route.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn forwards(&self, address: IpAddr) -> Result<BTreeSet<IpAddr>> {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let words = ["ip", "-json", family, "route", "show", "exact", &address.to_string()];
        let table: Vec<Value> = serde_json::from_str(&self.lab.exec(&self.host, &words)?)?;
        let ways = table.iter().flat_map(|route| {
            route["nexthops"].as_array().into_iter().flatten().chain(std::iter::once(route)).collect::<Vec<_>>()
        });
        Ok(ways.filter_map(|way| way["gateway"].as_str()?.parse().ok()).collect())
    }

    fn launches(&self) -> Result<Vec<Launch>> {
        Ok(match self.kind {
            kind if self.in_container()? => {
                vec![container::launch(self.state(), kind, &self.host, &self.config_file(), self.port)]
            }
            Kind::Frr => frr::launches(&self.host, &self.folder(), self.port),
            Kind::Bird => vec![bird::launch(&self.host, &self.folder())],
            Kind::Gobgp => vec![gobgp::launch(self.state(), &self.host, &self.config_file())?],
        })
    }

    fn wait_ready(&self) -> Result<()> {
        let records: Vec<_> =
            self.launches()?.iter().filter_map(|launch| process::find(self.state(), &launch.name)).collect();
        let names = || records.iter().map(|record| record.launch.name.as_str());
        wait::until(&format!("{self} answers"), READY_MAX, || {
            self.sessions()?;
            Ok(Some(()))
        })
        .with_context(|| names().map(|name| self.lab.last_words(name)).collect::<String>())
    }

    fn in_container(&self) -> Result<bool> {
        Ok(self.state().facts()?.is_container(&self.lab.host(&self.host)?))
    }

    fn state(&self) -> &State {
        self.lab.state()
    }

    fn folder(&self) -> PathBuf {
        self.state().file(&format!("router-{}", self.host))
    }

    fn config_file(&self) -> PathBuf {
        self.folder().join(CONFIG)
    }
}

/// What a router's configuration is called in its folder.
const CONFIG: &str = "router.conf";

//! What a lab needs before it can be raised: a fit machine, Debian packages, Kubernetes, GoBGP where there are routers, and our own programs, built.

pub mod cache;
pub mod docker;
pub mod doctor;
mod go;
pub mod gobgp;
pub mod images;
pub mod installers;
pub mod kubeadm;
pub mod kubernetes;
pub mod packages;
pub mod programs;
mod shelf;

use anyhow::Result;
use kubernetes::Version;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the repository: the lab always runs from a checkout.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Cargo, in the repository, as a person would call it. What the cargo that runs us says of our own package is taken out of the environment:
/// the build scripts of some crates look at it, and all that depends on them would be built anew each time.
pub fn cargo() -> Command {
    let own = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix))
            || ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"].contains(&name)
    };
    let mut cargo = Command::new("cargo");
    cargo.current_dir(repository());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(own) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The programs a lab is made of.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The folder with etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl.
    pub kubernetes: PathBuf,
    pub programs: programs::Programs,
    /// The folder with gobgpd and gobgp, for a lab with BGP.
    pub gobgp: Option<PathBuf>,
    /// The routers of a lab with BGP are containers.
    pub docker: bool,
    /// What the machines of a kubeadm cluster are made of, for a lab that is one.
    pub kubeadm: Option<kubeadm::Parts>,
}

impl Tools {
    /// All tools, built if they are not: once a process. For tests; the commands do it step by step, to show it.
    ///
    /// # Errors
    /// When something is missing or does not build, with what to do about it.
    pub fn ready() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        once(&READY, || {
            doctor::check()?;
            packages::install(&packages::missing(false)?)?;
            Ok(Self {
                kubernetes: Version::Newest.build()?,
                programs: programs::build()?,
                gobgp: None,
                docker: false,
                kubeadm: None,
            })
        })
    }

    /// [`Self::ready`] with what a lab with BGP needs, too.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn with_routers() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        once(&READY, || {
            let tools = Self::ready()?.clone();
            packages::install(&packages::missing(true)?)?;
            let docker = docker::is_asked_for()?;
            if docker {
                packages::install(&docker::missing())?;
            }
            Ok(Self { gobgp: Some(gobgp::build()?), docker, ..tools })
        })
    }

    /// [`Self::ready`] with the oldest Kubernetes in place of the newest.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn with_oldest() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        once(&READY, || Ok(Self { kubernetes: Version::Oldest.build()?, ..Self::ready()?.clone() }))
    }

    /// [`Self::ready`] with what a kubeadm cluster needs, too.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn with_kubeadm() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        once(&READY, || {
            let tools = Self::ready()?.clone();
            Ok(Self { kubeadm: Some(kubeadm::build()?), ..tools })
        })
    }

    /// [`Self::with_kubeadm`] and [`Self::with_routers`] together.
    ///
    /// # Errors
    /// As those.
    pub fn with_all() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        once(&READY, || Ok(Self { kubeadm: Self::with_kubeadm()?.kubeadm.clone(), ..Self::with_routers()?.clone() }))
    }
}

fn once(ready: &'static OnceLock<Tools>, make: impl FnOnce() -> Result<Tools>) -> Result<&'static Tools> {
    if let Some(tools) = ready.get() {
        return Ok(tools);
    }
    let tools = make()?;
    Ok(ready.get_or_init(|| tools))
}

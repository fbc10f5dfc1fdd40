//! Requirements of a lab: machine, Debian packages, Kubernetes, GoBGP for labs with routers, and
//! FerroLB's own programs.

mod build_cache;
pub mod cache;
pub mod cargo_tools;
pub mod docker;
pub(crate) mod go;
pub mod gobgp;
pub mod images;
pub mod installers;
pub mod kubeadm;
pub mod kubernetes;
pub mod metallb;
pub mod network_plugin;
pub mod packages;
pub mod programs;
pub mod release_programs;
pub mod requirements;
pub mod user_mode_linux;
pub mod zig;

pub(crate) use go::GARBAGE_COLLECTION;

use anyhow::Result;
use kubernetes::KubernetesVersion;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Returns the root of the repository: the lab always runs from a checkout.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Returns cargo in the repository, with the environment of a manual call.
pub fn cargo() -> Command {
    let mut cargo = ferrolb_lab_launcher::cargo();
    cargo.current_dir(repository());
    cargo
}

/// Returns the files that differ from the commit, one per line.
///
/// # Errors
/// If this is no clone.
pub fn changed_files() -> Result<String> {
    let mut git = Command::new("git");
    crate::run::run(git.current_dir(repository()).args(["status", "--porcelain"]))
}

/// Programs and directories that a lab needs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Directory with etcd, kube-apiserver, kube-controller-manager, kube-proxy and kubectl.
    pub kubernetes: PathBuf,
    pub programs: programs::LabPrograms,
    /// Directory with gobgpd and gobgp, for a lab with BGP.
    pub gobgp: Option<PathBuf>,
    /// Parts of the machines, for a kubeadm lab.
    pub kubeadm: Option<kubeadm::KubeadmParts>,
}

impl Tools {
    /// Returns all tools, and builds missing ones, once per process. Tests call this function. The
    /// commands run the same steps one by one to show their progress.
    ///
    /// # Errors
    /// If a tool is missing or does not build, with the remedy.
    pub fn ready() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        get_or_build(&READY, || {
            requirements::check()?;
            packages::install(&packages::missing(false)?)?;
            Ok(Self {
                kubernetes: KubernetesVersion::Newest.build()?,
                programs: programs::build()?,
                gobgp: None,
                kubeadm: None,
            })
        })
    }

    /// Returns the tools of [`Self::ready`] and those for a lab with BGP.
    ///
    /// # Errors
    /// See [`Self::ready`].
    pub fn with_routers() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        get_or_build(&READY, || {
            let tools = Self::ready()?.clone();
            packages::install(&packages::missing(true)?)?;
            Ok(Self { gobgp: Some(gobgp::build()?), ..tools })
        })
    }

    /// Returns the tools of [`Self::with_routers`], after it has installed a Docker engine.
    ///
    /// # Errors
    /// See [`Self::ready`].
    pub fn with_containers() -> Result<&'static Self> {
        packages::install(&docker::missing())?;
        Self::with_routers()
    }

    /// Returns the tools of [`Self::ready`] with the oldest Kubernetes in place of the newest.
    ///
    /// # Errors
    /// See [`Self::ready`].
    pub fn with_oldest() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        get_or_build(&READY, || {
            Ok(Self { kubernetes: KubernetesVersion::Oldest.build()?, ..Self::ready()?.clone() })
        })
    }

    /// Returns the tools of [`Self::ready`] and those for a kubeadm cluster.
    ///
    /// # Errors
    /// See [`Self::ready`].
    pub fn with_kubeadm() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        get_or_build(&READY, || {
            let tools = Self::ready()?.clone();
            Ok(Self { kubeadm: Some(kubeadm::build()?), ..tools })
        })
    }

    /// Returns the tools of [`Self::with_kubeadm`] and of [`Self::with_routers`].
    ///
    /// # Errors
    /// See [`Self::with_kubeadm`] and [`Self::with_routers`].
    pub fn with_all() -> Result<&'static Self> {
        static READY: OnceLock<Tools> = OnceLock::new();
        get_or_build(&READY, || {
            Ok(Self {
                kubeadm: Self::with_kubeadm()?.kubeadm.clone(),
                ..Self::with_routers()?.clone()
            })
        })
    }
}

fn get_or_build(
    ready: &'static OnceLock<Tools>,
    build_tools: impl FnOnce() -> Result<Tools>,
) -> Result<&'static Tools> {
    if let Some(tools) = ready.get() {
        return Ok(tools);
    }
    let tools = build_tools()?;
    Ok(ready.get_or_init(|| tools))
}

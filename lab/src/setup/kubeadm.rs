//! Parts of the machines of a kubeadm cluster: their programs, their root file system, and the
//! images that kubeadm needs. All are built from Go modules and Debian packages; no registry is
//! used.

mod kubeadm_images;

use super::build_cache::{self, Inputs};
use super::images::{self, Arch};
use super::kubernetes::KubernetesVersion;
use super::programs::{self, StaticPrograms};
use super::{go, kubernetes, packages, requirements};
use crate::run;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

pub use kubeadm_images::PodImage;

/// Name of the directory in the lab's cache that holds the built components of a kubeadm cluster.
const CACHE_NAME: &str = "kubeadm";
/// Names of the programs that the multi-call binary contains.
const PROGRAMS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubelet",
];
/// Source of the binary, in addition to the module's own files.
const SOURCE: &str = "node/main.go";
/// Debian packages of the tool that creates a root file system, of the compiler that builds pause,
/// and of the registry.
const TOOLS: [&str; 4] = ["debootstrap", "gcc", "libc6-dev", "docker-registry"];
/// Packages of a machine in addition to Debian's minimal set.
const PACKAGES: [&str; 8] = [
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "iproute2",
    "ipset",
    "iptables",
    "nftables",
    "runc",
];

/// Paths of the parts of a kubeadm cluster's machines.
#[derive(Clone, Debug)]
pub struct KubeadmParts {
    /// Directory with kubeadm and kubelet.
    pub programs: PathBuf,
    /// Root file system, which no machine changes.
    pub root: PathBuf,
    /// Directory with the archive of kubeadm's images.
    pub images: PathBuf,
    /// Name of the image of every pod's sandbox.
    pub pause: String,
    /// FerroLB's own programs, for its images.
    pub ferrolb: StaticPrograms,
}

/// Checks the machine, and installs the tools that build the parts.
///
/// # Errors
/// If the machine cannot run the lab's kubelets.
fn prepare() -> Result<()> {
    images::prepare(Arch::own())?;
    packages::install(&packages::missing_of(&TOOLS)?)
}

/// Builds the programs, once for each set of inputs.
///
/// # Errors
/// If the programs do not build, with the end of Go's output.
fn build_programs() -> Result<PathBuf> {
    build_cache::build(CACHE_NAME, &inputs_of_programs()?, |folder| {
        KubernetesVersion::Newest.compile("./node", &folder.join("node"))?;
        Ok(PROGRAMS.iter().try_for_each(|program| symlink("node", folder.join(program)))?)
    })
}

fn inputs_of_programs() -> Result<Inputs> {
    let mut inputs = KubernetesVersion::Newest.inputs_of_module(&go::version()?)?;
    let source = kubernetes::sources().join(SOURCE);
    inputs.push((
        SOURCE.to_owned(),
        fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?,
    ));
    Ok(inputs)
}

/// Creates the root file system from packages of this machine's own Debian release, from its own
/// mirror.
///
/// # Errors
/// If debootstrap fails, with the end of its output.
fn build_root() -> Result<PathBuf> {
    let (mirror, suite) = debian_release()?;
    let inputs = [("suite", suite.clone()), ("packages", PACKAGES.join(" "))];
    let inputs =
        inputs.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect();
    build_cache::build(CACHE_NAME, &inputs, |folder| {
        let include = format!("--include={}", PACKAGES.join(","));
        run::run(
            Command::new("debootstrap")
                .args(["--variant=minbase", &include, &suite])
                .arg(folder)
                .arg(&mirror),
        )?;
        // The downloaded package files are not needed again.
        Ok(fs::remove_dir_all(folder.join("var/cache/apt"))?)
    })
}

/// Returns the mirror and the release name of this machine's Debian, from apt.
pub(super) fn debian_release() -> Result<(String, String)> {
    let line = requirements::first_line(
        "apt-get",
        &[
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME)",
            "Created-By: Packages",
            "Component: main",
        ],
    );
    let line = line.context("apt-get has no archive: /etc/apt/sources.list is empty")?;
    let (mirror, suite) = line.split_once(' ').context("apt-get printed no release name")?;
    Ok((mirror.to_owned(), suite.to_owned()))
}

/// Returns all parts, and builds missing ones.
///
/// # Errors
/// If a part cannot be built.
pub fn build() -> Result<KubeadmParts> {
    prepare()?;
    let (programs, root) = (build_programs()?, build_root()?);
    let names = kubeadm_images::image_names(&programs, &KubernetesVersion::Newest.name()?)?;
    let pause = kubeadm_images::find(&names, "pause")?.to_owned();
    let mut inputs: Inputs = [&programs, &root]
        .iter()
        .map(|folder| ("made of".to_owned(), folder.display().to_string().into_bytes()))
        .collect();
    inputs.push(("images".to_owned(), names.join(" ").into_bytes()));
    inputs.push(("form".to_owned(), kubeadm_images::FORMAT_VERSION.into()));
    let images = build_cache::build(CACHE_NAME, &inputs, |folder| {
        kubeadm_images::make(&programs, &root, &names, Arch::own(), folder)
    })?;
    let ferrolb = programs::build_static("lab", Arch::own().target())?;
    Ok(KubeadmParts { programs, root, images, pause, ferrolb })
}

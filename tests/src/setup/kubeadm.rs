//! What the machines of a kubeadm cluster are made of: their programs, their root file system, and the images that kubeadm asks for. All of it is made here,
//! of Go modules and Debian packages; no registry is asked.

mod wanted;

use super::images::{self, Arch};
use super::kubernetes::Version;
use super::programs::{self, Static};
use super::shelf::{self, Inputs};
use super::{doctor, go, kubernetes, packages};
use crate::run;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use wanted::Pod;

/// Their place in the cache.
const SHELF: &str = "kubeadm";
/// The names that the multi-call binary answers to.
const PROGRAMS: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubeadm", "kubelet"];
/// What it is made from, besides the module's own files.
const SOURCE: &str = "node/main.go";
/// What makes a root file system, and what compiles pause.
const TOOLS: [&str; 3] = ["debootstrap", "gcc", "libc6-dev"];
/// What a machine has besides Debian's smallest set.
const PACKAGES: [&str; 7] =
    ["conntrack", "containerd", "containernetworking-plugins", "iproute2", "iptables", "nftables", "runc"];
/// By this folder the first version of control groups is told from the second, which is not tried.
const GROUPS_V1: &str = "/sys/fs/cgroup/memory";

/// Where the parts are.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The folder with kubeadm and kubelet.
    pub programs: PathBuf,
    /// The root file system, which no machine changes.
    pub root: PathBuf,
    /// The folder with the archive of kubeadm's images.
    pub images: PathBuf,
    /// The image of every pod's sandbox.
    pub pause: String,
    /// FerroLB's own, for its images.
    pub ferrolb: Static,
}

/// Checks the machine, and installs what the parts are made by.
///
/// # Errors
/// When the machine is none that the lab makes kubelets run on.
fn prepare() -> Result<()> {
    ensure!(
        Path::new(GROUPS_V1).is_dir(),
        "a kubeadm lab needs a machine with cgroup v1: {GROUPS_V1} is not there, and version 2 was not tried"
    );
    images::prepare(Arch::own())?;
    packages::install(&packages::missing_of(&TOOLS)?)
}

/// Builds the programs, once for each set of inputs.
///
/// # Errors
/// When they do not build, with Go's last words.
fn build_programs() -> Result<PathBuf> {
    shelf::build(SHELF, &inputs_of_programs()?, |aside| {
        Version::Newest.compile("./node", &aside.join("node"))?;
        Ok(PROGRAMS.iter().try_for_each(|program| symlink("node", aside.join(program)))?)
    })
}

fn inputs_of_programs() -> Result<Inputs> {
    let mut inputs = Version::Newest.inputs_of_module(&go::version()?)?;
    let source = kubernetes::sources().join(SOURCE);
    inputs.push((SOURCE.to_owned(), fs::read(&source).with_context(|| format!("no {}", source.display()))?));
    Ok(inputs)
}

/// Makes the root file system out of packages of this machine's own Debian, from where it has its own.
///
/// # Errors
/// When debootstrap fails, with its last words.
fn build_root() -> Result<PathBuf> {
    let (mirror, suite) = release()?;
    let inputs = [("suite", suite.clone()), ("packages", PACKAGES.join(" "))];
    let inputs = inputs.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect();
    shelf::build(SHELF, &inputs, |aside| {
        let include = format!("--include={}", PACKAGES.join(","));
        run::run(Command::new("debootstrap").args(["--variant=minbase", &include, &suite]).arg(aside).arg(&mirror))?;
        // The packages themselves are not needed again.
        Ok(fs::remove_dir_all(aside.join("var/cache/apt"))?)
    })
}

/// Where apt has this machine's Debian from, and what that is called.
fn release() -> Result<(String, String)> {
    let said = doctor::first_line(
        "apt-get",
        &["indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages", "Component: main"],
    );
    let said = said.context("apt-get knows no archive: /etc/apt/sources.list is empty")?;
    let (mirror, suite) = said.split_once(' ').context("apt-get names no release")?;
    Ok((mirror.to_owned(), suite.to_owned()))
}

/// All parts, made where they are not there.
///
/// # Errors
/// When one cannot be made.
pub fn build() -> Result<Parts> {
    prepare()?;
    let (programs, root) = (build_programs()?, build_root()?);
    let names = wanted::wanted(&programs, &Version::Newest.name()?)?;
    let pause = wanted::find(&names, "pause")?.to_owned();
    let mut inputs: Inputs = [&programs, &root]
        .iter()
        .map(|folder| ("made of".to_owned(), folder.display().to_string().into_bytes()))
        .collect();
    inputs.push(("images".to_owned(), names.join(" ").into_bytes()));
    inputs.push(("form".to_owned(), wanted::FORM.into()));
    let images = shelf::build(SHELF, &inputs, |aside| wanted::make(&programs, &root, &names, Arch::own(), aside))?;
    let ferrolb = programs::build_static("release", Arch::own().target())?;
    Ok(Parts { programs, root, images, pause, ferrolb })
}

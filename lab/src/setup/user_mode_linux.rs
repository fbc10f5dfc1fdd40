//! User Mode Linux: a Linux kernel that is a program of this computer, built from the source of
//! Debian's next release. Debian's own build lacks what kube-proxy needs (`nft_nat`), and kernels
//! before 6.16 fail on processors with wide registers (AMX).

use super::build_cache::{self, Inputs};
use super::{kubeadm, packages};
use crate::run;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the directory in the lab's cache.
const CACHE_NAME: &str = "user-mode-linux";
/// Release of the source, and its package, whose name ends with the version.
const SUITE: &str = "forky";
const SOURCE: &str = "^linux-source-[0-9.]+$";
/// Packages that build a kernel.
const TOOLS: [&str; 7] = ["bc", "bison", "flex", "gcc", "libc6-dev", "make", "xz-utils"];
/// Keys that sign Debian's archive.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Options of the kernel in addition to its defaults, without modules.
const OPTIONS: &str = include_str!("user_mode_linux.config");

/// Script of the first process. It changes no file of this computer: all changes are on the disk
/// `ubda`, in an overlay. An overlay cannot be on an overlay, so the directory of the lab's
/// machines is on the disk itself. The script runs its arguments as a program, whose output is that
/// of the kernel's program, and ends the kernel with the same exit code.
const INIT_SCRIPT: &str = r#"#!/bin/sh
set -eu
mount -t tmpfs tmpfs /mnt
mkdir /mnt/disk /mnt/root
mount -t ext4 /dev/ubda /mnt/disk
mkdir /mnt/disk/upper /mnt/disk/work /mnt/disk/lab
mount -t overlay -o lowerdir=/,upperdir=/mnt/disk/upper,workdir=/mnt/disk/work overlay /mnt/root
cd /mnt/root
mkdir -p var/lib/ferrolb-lab
mount --bind /mnt/disk/lab var/lib/ferrolb-lab
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t devtmpfs devtmpfs dev
mkdir dev/pts dev/shm
ln -s /proc/self/fd dev/fd
mount -t devpts -o ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
pivot_root . mnt
umount -l /mnt
hostname virtual-machine
ip link set lo up
status=0
"$@" </dev/null >/dev/tty0 2>/dev/tty1 || status=$?
echo "$status" >/proc/exitcode
halt -f
"#;

/// Paths of a built kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub program: PathBuf,
    /// Script of the first process.
    pub init: PathBuf,
}

/// Returns the kernel, and builds it if it is missing.
///
/// # Errors
/// If Debian's archive cannot be reached, or the kernel does not build.
pub fn build() -> Result<Kernel> {
    packages::install(&packages::missing_of(&TOOLS)?)?;
    let inputs = [("suite", SUITE), ("options", OPTIONS), ("init", INIT_SCRIPT)]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let folder = build_cache::build(CACHE_NAME, &Inputs::from(inputs), |folder| {
        let source = download(&folder.join("source"))?;
        compile(&source).context("User Mode Linux does not build")?;
        fs::copy(source.join("linux"), folder.join("linux"))?;
        fs::remove_dir_all(folder.join("source"))?;
        let init = folder.join("init");
        fs::write(&init, INIT_SCRIPT)?;
        Ok(fs::set_permissions(init, fs::Permissions::from_mode(0o755))?)
    })?;
    Ok(Kernel { program: folder.join("linux"), init: folder.join("init") })
}

/// Compiles the kernel in the directory of its source.
fn compile(source: &Path) -> Result<()> {
    let make = |arguments: &[&str]| {
        let mut make = Command::new("make");
        run::run(make.current_dir(source).args(["--silent", "ARCH=um"]).args(arguments))
    };
    make(&["defconfig"])?;
    let config = source.join(".config");
    let defaults = fs::read_to_string(&config)?;
    fs::write(&config, format!("{defaults}\n{OPTIONS}"))?;
    make(&["olddefconfig"])?;
    let config = fs::read_to_string(&config)?;
    let missing: Vec<_> = OPTIONS
        .lines()
        .filter(|option| option.ends_with("=y") && !config.lines().any(|line| line == *option))
        .collect();
    ensure!(missing.is_empty(), "this kernel lacks {missing:?}");
    let jobs = std::thread::available_parallelism()?.to_string();
    make(&["--jobs", &jobs, "linux"]).map(drop)
}

/// Downloads the source from this computer's own mirror, and returns its directory. apt checks the
/// signatures. Its lists of this computer's own release remain.
fn download(folder: &Path) -> Result<PathBuf> {
    let (mirror, _) = kubeadm::debian_release()?;
    for inner in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(folder.join(inner))?;
    }
    let sources = folder.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={KEYS}] {mirror} {SUITE} main\n"))?;
    let apt = |program: &str, arguments: &[&str]| {
        let mut apt = Command::new(program);
        apt.current_dir(folder).args(arguments);
        for (option, value) in [
            ("Dir::Etc::SourceList", &sources),
            ("Dir::Etc::SourceParts", &PathBuf::from("/dev/null")),
            ("Dir::State::Lists", &folder.join("lists")),
            ("Dir::Cache", &folder.to_owned()),
        ] {
            apt.arg("-o").arg(format!("{option}={}", value.display()));
        }
        // The user _apt cannot write to this folder.
        run::run(apt.args(["-o", "APT::Sandbox::User=root"]))
    };
    apt("apt-get", &["--quiet", "update"])?;
    let names = apt("apt-cache", &["--names-only", "search", SOURCE])?;
    let name = names.split_whitespace().next();
    let name = name.with_context(|| format!("{SUITE} has no source of Linux"))?;
    apt("apt-get", &["--quiet", "download", name])?;
    let script = "dpkg-deb --fsys-tarfile ./*.deb | tar --extract --to-stdout --wildcards '*.tar.xz' | tar --extract --xz";
    run::run(Command::new("sh").current_dir(folder).args(["-euc", script]))?;
    Ok(folder.join(name))
}

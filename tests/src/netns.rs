//! Network namespaces: entering one, and finding what lives in it. Only namespaces that a lab made are ever named here.

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// An open namespace, to be entered.
///
/// # Errors
/// When no namespace has this name.
pub fn open(namespace: &str) -> Result<File> {
    File::open(path(namespace)).with_context(|| format!("there is no network namespace {namespace}"))
}

/// Moves the calling thread, and what it starts, into `namespace` for good.
///
/// # Errors
/// When there is no such namespace, or no right to enter it.
pub fn enter(namespace: &str) -> Result<()> {
    let file = open(namespace)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace {namespace}"))
}

/// Does `work` on a thread of its own inside `namespace`. A panic in it goes on in the caller, so that a test fails with its own words.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace)?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The names of all namespaces that begin with `prefix`.
pub fn list(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// The processes whose network namespace is one of `namespaces`, by one walk over `/proc`.
pub fn pids(namespaces: &[String]) -> Vec<i32> {
    let ours: BTreeSet<(u64, u64)> = namespaces.iter().filter_map(|name| identity(&path(name))).collect();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| identity(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|id| ours.contains(&id)))
        .collect()
}

fn path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// Device and inode say which namespace a file stands for.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

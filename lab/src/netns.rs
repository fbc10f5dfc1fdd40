//! Network namespaces: entering one, and finding its processes. All names in this module are names
//! of namespaces that a lab created.

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directory in which `ip netns` keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// Opens a namespace in order to enter it.
///
/// # Errors
/// If no namespace has this name.
pub fn open(namespace: &str) -> Result<File> {
    File::open(path(namespace))
        .with_context(|| format!("there is no network namespace {namespace}"))
}

/// Moves the calling thread, and all processes that it starts, into `namespace` permanently.
///
/// # Errors
/// If there is no such namespace, or permission to enter it is missing.
pub fn enter(namespace: &str) -> Result<()> {
    let file = open(namespace)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace {namespace}"))
}

/// Runs `work` on a thread of its own in `namespace`. A panic in `work` continues in the caller, so
/// that a test fails with its own message.
///
/// # Errors
/// If the namespace cannot be entered.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace)?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Returns the names of all namespaces that begin with `prefix`.
pub fn list(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// Returns the processes in the network namespaces `namespaces`, by one pass over `/proc`.
pub fn pids(namespaces: &[String]) -> Vec<i32> {
    let identities: BTreeSet<(u64, u64)> =
        namespaces.iter().filter_map(|name| identity(&path(name))).collect();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        identity(Path::new(&format!("/proc/{pid}/ns/net")))
            .is_some_and(|id| identities.contains(&id))
    })
    .collect()
}

fn path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// Returns device and inode of a file, which identify its namespace.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

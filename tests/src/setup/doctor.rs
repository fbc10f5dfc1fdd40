//! Checks the machine before anything else is done, and names the remedy of everything that is missing in one go.

use super::{cache, kubernetes};
use anyhow::{Result, bail};
use rustix::fs::statvfs;
use std::path::Path;
use std::process::Command;

/// The oldest Rust that builds the workspace (`rust-version` in Cargo.toml).
const RUST_MIN: Version = Version(1, 95);
/// The oldest Go that builds this Kubernetes; GoBGP asks for less.
const GO_MIN: Version = Version(1, 26);
/// Free disk space that the first build takes, its caches included, in gigabytes.
const DISK_COLD_GB: u64 = 8;
/// Free disk space once Kubernetes is built, in gigabytes; GoBGP takes less.
const DISK_WARM_GB: u64 = 1;

/// A version's first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What was found on the machine.
struct Machine {
    root: bool,
    rust: Option<Version>,
    go: Option<Version>,
    apt: bool,
    disk_gb: u64,
    disk_needed_gb: u64,
}

/// Checks rights, Rust, Go, apt and disk.
///
/// # Errors
/// When something is missing: every such thing, each with its remedy.
pub fn check() -> Result<()> {
    let remedies = remedies(&look()?);
    if remedies.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine is not ready yet:\n{}",
        remedies.iter().map(|remedy| format!("  - {remedy}\n")).collect::<String>()
    )
}

fn look() -> Result<Machine> {
    let cache = cache::folder()?;
    let existing = cache.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(existing)?;
    let go = first_line("go", &["version"]);
    let built =
        go.as_deref().is_some_and(|go| kubernetes::Version::Newest.built(go).is_ok_and(|folder| folder.is_some()));
    Ok(Machine {
        root: rustix::process::geteuid().is_root(),
        rust: first_line("rustc", &["--version"]).as_deref().and_then(version),
        go: go.as_deref().and_then(version),
        apt: first_line("apt-get", &["--version"]).is_some(),
        disk_gb: disk.f_bavail * disk.f_frsize / 1_000_000_000,
        disk_needed_gb: if built { DISK_WARM_GB } else { DISK_COLD_GB },
    })
}

fn remedies(machine: &Machine) -> Vec<String> {
    let mut remedies = Vec::new();
    if !machine.root {
        remedies.push(
            "root rights, for network namespaces: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo lab ...".to_owned(),
        );
    }
    if machine.rust.is_none_or(|found| found < RUST_MIN) {
        remedies.push(format!(
            "Rust {RUST_MIN} or newer{}: install it from https://rustup.rs, or `rustup update`",
            found(machine.rust)
        ));
    }
    if machine.go.is_none_or(|found| found < GO_MIN) {
        remedies.push(format!(
            "Go {GO_MIN} or newer{}, to build Kubernetes and GoBGP: unpack it from https://go.dev/dl/ into /usr/local and add /usr/local/go/bin to PATH",
            found(machine.go)
        ));
    }
    if !machine.apt {
        remedies.push("apt-get: the lab is made for Debian 12 and newer, or a system like it".to_owned());
    }
    if machine.disk_gb < machine.disk_needed_gb {
        remedies.push(format!(
            "{} GB of free disk for what is built ({} GB are free): free some, or point XDG_CACHE_HOME to a larger disk",
            machine.disk_needed_gb, machine.disk_gb
        ));
    }
    remedies
}

fn found(version: Option<Version>) -> String {
    version.map_or_else(|| " (none is in PATH)".to_owned(), |version| format!(" ({version} is in PATH)"))
}

/// What a tool says in its first line; none when it is not there.
pub(super) fn first_line(tool: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(args).current_dir(super::repository()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// The version in `rustc 1.95.0 (...)`, `go version go1.26.8 linux/amd64` or `go version go1.27rc1 ...`.
fn version(line: &str) -> Option<Version> {
    line.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches("go").split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(Version(major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIT: Machine = Machine {
        root: true,
        rust: Some(RUST_MIN),
        go: Some(GO_MIN),
        apt: true,
        disk_gb: DISK_COLD_GB,
        disk_needed_gb: DISK_COLD_GB,
    };

    #[test]
    fn versions_are_read_as_the_tools_print_them() {
        for (line, expect) in [
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some(Version(1, 95))),
            ("go version go1.26.8 linux/amd64", Some(Version(1, 26))),
            ("go version go1.27rc1 linux/arm64", Some(Version(1, 27))),
            ("go version devel linux/amd64", None),
            ("", None),
        ] {
            assert_eq!(version(line), expect, "{line}");
        }
        assert!(Version(2, 0) > RUST_MIN && Version(1, 100) > RUST_MIN);
    }

    #[test]
    fn a_fit_machine_needs_no_remedy() {
        assert_eq!(remedies(&FIT), Vec::<String>::new());
    }

    #[test]
    fn each_missing_thing_has_its_own_remedy_and_all_are_named_at_once() {
        for (machine, expect) in [
            (Machine { root: false, ..FIT }, "sudo"),
            (Machine { rust: Some(Version(1, 94)), ..FIT }, "Rust 1.95 or newer (1.94 is in PATH)"),
            (Machine { go: None, ..FIT }, "Go 1.26 or newer (none is in PATH)"),
            (Machine { apt: false, ..FIT }, "Debian"),
            (Machine { disk_gb: 7, ..FIT }, "8 GB of free disk for what is built (7 GB are free)"),
        ] {
            let remedies = remedies(&machine);
            assert!(remedies.len() == 1 && remedies[0].contains(expect), "{remedies:?}");
        }
        let bare = Machine { root: false, rust: None, go: None, apt: false, disk_gb: 0, disk_needed_gb: 8 };
        assert_eq!(remedies(&bare).len(), 5);
    }
}

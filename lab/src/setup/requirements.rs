//! Checks the machine first, and reports the remedies of all missing requirements at once.

use super::{cache, kubernetes};
use anyhow::{Result, bail};
use rustix::fs::statvfs;
use std::path::Path;
use std::process::Command;

/// Minimum version of Rust for the workspace (`rust-version` in Cargo.toml).
const RUST_MIN: ToolVersion = ToolVersion(1, 95);
/// Minimum version of Go for this Kubernetes; GoBGP needs less.
const GO_MIN: ToolVersion = ToolVersion(1, 26);
/// Free disk space in gigabytes for the first build, including caches.
const DISK_COLD_GB: u64 = 8;
/// Free disk space in gigabytes after Kubernetes is built; GoBGP needs less.
const DISK_WARM_GB: u64 = 1;

/// First two numbers of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ToolVersion(u32, u32);

impl std::fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Properties of the machine.
struct MachineCheck {
    root: bool,
    rust: Option<ToolVersion>,
    go: Option<ToolVersion>,
    apt: bool,
    disk_gb: u64,
    disk_needed_gb: u64,
}

/// Checks permissions, Rust, Go, apt and disk.
///
/// # Errors
/// If a requirement is missing: all missing ones, each with its remedy.
pub fn check() -> Result<()> {
    let remedies = remedies(&inspect()?);
    if remedies.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine is not ready yet:\n{}",
        remedies.iter().map(|remedy| format!("  - {remedy}\n")).collect::<String>()
    )
}

fn inspect() -> Result<MachineCheck> {
    let cache = cache::folder()?;
    let existing = cache.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(existing)?;
    let go = first_line("go", &["version"]);
    let built = go.as_deref().is_some_and(|go| {
        kubernetes::KubernetesVersion::Newest.built(go).is_ok_and(|folder| folder.is_some())
    });
    Ok(MachineCheck {
        root: rustix::process::geteuid().is_root(),
        rust: first_line("rustc", &["--version"]).as_deref().and_then(version),
        go: go.as_deref().and_then(version),
        apt: first_line("apt-get", &["--version"]).is_some(),
        disk_gb: disk.f_bavail * disk.f_frsize / 1_000_000_000,
        disk_needed_gb: if built { DISK_WARM_GB } else { DISK_COLD_GB },
    })
}

fn remedies(machine: &MachineCheck) -> Vec<String> {
    let mut remedies = Vec::new();
    if !machine.root {
        remedies.push(
            "root permissions, for network namespaces: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo lab ...".to_owned(),
        );
    }
    if machine.rust.is_none_or(|found_version| found_version < RUST_MIN) {
        remedies.push(format!(
            "Rust {RUST_MIN} or newer{}: install it from https://rustup.rs, or `rustup update`",
            found_version(machine.rust)
        ));
    }
    if machine.go.is_none_or(|found_version| found_version < GO_MIN) {
        remedies.push(format!(
            "Go {GO_MIN} or newer{}, to build Kubernetes and GoBGP: unpack it from https://go.dev/dl/ into /usr/local and add /usr/local/go/bin to PATH",
            found_version(machine.go)
        ));
    }
    if !machine.apt {
        remedies.push(
            "apt-get: the lab is made for Debian 12 and newer, or a system like it".to_owned(),
        );
    }
    if machine.disk_gb < machine.disk_needed_gb {
        remedies.push(format!(
            "{} GB of free disk for the builds ({} GB are free): free some, or point XDG_CACHE_HOME to a larger disk",
            machine.disk_needed_gb, machine.disk_gb
        ));
    }
    remedies
}

fn found_version(version: Option<ToolVersion>) -> String {
    version.map_or_else(
        || " (none is in PATH)".to_owned(),
        |version| format!(" ({version} is in PATH)"),
    )
}

/// Returns the first line of a tool's output; `None` if the tool does not exist.
pub(super) fn first_line(tool: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(args).current_dir(super::repository()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Parses the version in `rustc 1.95.0 (...)`, `go version go1.26.8 linux/amd64` or
/// `go version go1.27rc1 ...`.
fn version(line: &str) -> Option<ToolVersion> {
    line.split_whitespace().find_map(|word| {
        let (major, rest) = word.trim_start_matches("go").split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(ToolVersion(major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID_MACHINE: MachineCheck = MachineCheck {
        root: true,
        rust: Some(RUST_MIN),
        go: Some(GO_MIN),
        apt: true,
        disk_gb: DISK_COLD_GB,
        disk_needed_gb: DISK_COLD_GB,
    };

    #[test]
    fn versions_are_parsed_from_tool_output() {
        for (line, expect) in [
            ("rustc 1.95.0 (59807616e 2026-04-14)", Some(ToolVersion(1, 95))),
            ("go version go1.26.8 linux/amd64", Some(ToolVersion(1, 26))),
            ("go version go1.27rc1 linux/arm64", Some(ToolVersion(1, 27))),
            ("go version devel linux/amd64", None),
            ("", None),
        ] {
            assert_eq!(version(line), expect, "{line}");
        }
        assert!(ToolVersion(2, 0) > RUST_MIN && ToolVersion(1, 100) > RUST_MIN);
    }

    #[test]
    fn a_valid_machine_needs_no_remedy() {
        assert_eq!(remedies(&VALID_MACHINE), Vec::<String>::new());
    }

    #[test]
    fn every_missing_requirement_has_its_remedy() {
        for (machine, expect) in [
            (MachineCheck { root: false, ..VALID_MACHINE }, "sudo"),
            (
                MachineCheck { rust: Some(ToolVersion(1, 94)), ..VALID_MACHINE },
                "Rust 1.95 or newer (1.94 is in PATH)",
            ),
            (MachineCheck { go: None, ..VALID_MACHINE }, "Go 1.26 or newer (none is in PATH)"),
            (MachineCheck { apt: false, ..VALID_MACHINE }, "Debian"),
            (
                MachineCheck { disk_gb: 7, ..VALID_MACHINE },
                "8 GB of free disk for the builds (7 GB are free)",
            ),
        ] {
            let remedies = remedies(&machine);
            assert!(remedies.len() == 1 && remedies[0].contains(expect), "{remedies:?}");
        }
        let bare = MachineCheck {
            root: false,
            rust: None,
            go: None,
            apt: false,
            disk_gb: 0,
            disk_needed_gb: 8,
        };
        assert_eq!(remedies(&bare).len(), 5);
    }
}

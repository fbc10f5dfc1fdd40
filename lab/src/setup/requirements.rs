//! Checks the machine first, and reports the remedies of all missing requirements at once.

use super::{cache, kubernetes};
use anyhow::{Result, bail};
use ferrolb_lab_launcher::first_run::DISK_GB;
use ferrolb_lab_launcher::requirements::{self, ToolVersion, UserAndGo, found_version};
use rustix::fs::statvfs;
use std::path::Path;
use std::process::Command;

/// Minimum version of Rust for the workspace (`rust-version` in Cargo.toml).
const RUST_MIN: ToolVersion = ToolVersion(1, 95);
/// Free disk space in gigabytes for the first build, including caches.
const DISK_COLD_GB: u64 = DISK_GB;
/// Free disk space in gigabytes after Kubernetes is built; GoBGP needs less.
const DISK_WARM_GB: u64 = 1;

/// Properties of the machine.
struct MachineCheck {
    user_and_go: UserAndGo,
    rust: Option<ToolVersion>,
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
    bail!(requirements::not_ready(&remedies))
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
        user_and_go: UserAndGo::of_process(go.as_deref()),
        rust: first_line("rustc", &["--version"]).as_deref().and_then(ToolVersion::parse),
        apt: first_line("apt-get", &["--version"]).is_some(),
        disk_gb: disk.f_bavail * disk.f_frsize / 1_000_000_000,
        disk_needed_gb: if built { DISK_WARM_GB } else { DISK_COLD_GB },
    })
}

fn remedies(machine: &MachineCheck) -> Vec<String> {
    let mut remedies = machine.user_and_go.remedies();
    if machine.rust.is_none_or(|found_version| found_version < RUST_MIN) {
        remedies.push(format!(
            "Rust {RUST_MIN} or newer{}: install it from https://rustup.rs, or `rustup update`",
            found_version(machine.rust)
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

/// Returns the first line of a tool's output; `None` if the tool does not exist.
pub(super) fn first_line(tool: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(args).current_dir(super::repository()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrolb_lab_launcher::requirements::GO_MIN;

    const VALID_MACHINE: MachineCheck = MachineCheck {
        user_and_go: UserAndGo { is_root: true, go: Some(GO_MIN) },
        rust: Some(RUST_MIN),
        apt: true,
        disk_gb: DISK_COLD_GB,
        disk_needed_gb: DISK_COLD_GB,
    };

    #[test]
    fn a_valid_machine_needs_no_remedy() {
        assert_eq!(remedies(&VALID_MACHINE), Vec::<String>::new());
    }

    #[test]
    fn every_missing_requirement_has_its_remedy() {
        for (machine, expect) in [
            (
                MachineCheck {
                    user_and_go: UserAndGo { is_root: false, go: Some(GO_MIN) },
                    ..VALID_MACHINE
                },
                "sudo",
            ),
            (
                MachineCheck { rust: Some(ToolVersion(1, 94)), ..VALID_MACHINE },
                "Rust 1.95 or newer (1.94 is in PATH)",
            ),
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
            user_and_go: UserAndGo { is_root: false, go: None },
            rust: None,
            apt: false,
            disk_gb: 0,
            disk_needed_gb: 8,
        };
        assert_eq!(remedies(&bare).len(), 5);
    }
}

//! Debian packages that a lab needs, installed by `apt-get` if they are missing.

use crate::run;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// Packages of every lab, and their purpose.
const LAB_PACKAGES: [(&str, &str); 10] = [
    ("iproute2", "ip: namespaces, interfaces, addresses, neighbors"),
    ("nftables", "kube-proxy in nftables mode"),
    ("iptables", "kube-proxy in iptables mode"),
    ("openssl", "the control plane's keys"),
    ("curl", "pages fetched from inside a namespace"),
    ("jq", "commands of pages that change objects"),
    ("iputils-arping", "owners of IPv4 addresses, by ARP requests"),
    ("ndisc6", "owners of IPv6 addresses, by neighbor solicitations"),
    ("tcpdump", "commands of pages that show frames"),
    ("keepalived", "the comparison in `cargo lab bench failover`"),
];

/// Additional package of labs with Cilium, which shows the BPF programs of this computer.
pub const BPFTOOL: &str = "bpftool";
/// Additional packages of labs with routers.
const ROUTER_PACKAGES: [(&str, &str); 2] = [("frr", "a router"), ("bird2", "another router")];
/// Services of packages: package, and service that would start at the next boot.
const SERVICES: [(&str, &str); 4] = [
    ("frr", "frr"),
    ("bird2", "bird"),
    ("docker.io", "docker"),
    ("docker-registry", "docker-registry"),
];
/// Units of packages that only systemd uses: package, and unit.
const UNITS: [(&str, &str); 2] =
    [("docker.io", "docker.socket"), ("docker.io", "containerd.service")];
/// Path of systemctl; without systemd it does not exist, and units have no effect.
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// Script that Debian runs before it starts an installed service; exit code 101 forbids the start
/// (invoke-rc.d(8)).
const POLICY_SCRIPT: &str = "/usr/sbin/policy-rc.d";
/// Text in the lab's own policy script that distinguishes it from any other policy script.
const POLICY_MARKER: &str = "made by cargo lab";

/// Returns the required packages that are not installed. Packages for routers are required only if
/// `routers` is true.
///
/// # Errors
/// If `dpkg-query` does not exist: the machine is not a Debian system.
pub fn missing(routers: bool) -> Result<Vec<&'static str>> {
    missing_of(&needed(routers))
}

/// Returns the packages of `needed` that are not installed.
///
/// # Errors
/// If `dpkg-query` does not exist: the machine is not a Debian system.
pub fn missing_of(needed: &[&'static str]) -> Result<Vec<&'static str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
        .args(needed)
        .output()
        .context("cannot start dpkg-query: the lab is made for Debian")?;
    // The command fails for an unknown package, but still prints the known packages.
    Ok(missing_from(needed, &String::from_utf8_lossy(&output.stdout)))
}

/// Installs packages. Updates the package lists first, because a fresh machine has none. No service
/// of the packages starts, now or at the next boot: the lab runs the programs in its own
/// namespaces.
///
/// # Errors
/// If `apt-get` fails, with the end of its output.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    run::run(apt_get().arg("update"))
        .context("cannot fetch the package lists: check the network")?;
    // Hooks of apt-get around dpkg: apt-get runs the second one even if the lab is killed.
    let forbid = format!(
        "[ -e {POLICY_SCRIPT} ] || {{ printf '#!/bin/sh\\n# {POLICY_MARKER}\\nexit 101\\n' >{POLICY_SCRIPT} && chmod 755 {POLICY_SCRIPT}; }}"
    );
    let allow = format!("! grep -qs '{POLICY_MARKER}' {POLICY_SCRIPT} || rm {POLICY_SCRIPT}");
    let mut install = apt_get();
    install.args([
        "-o",
        &format!("DPkg::Pre-Invoke::={forbid}"),
        "-o",
        &format!("DPkg::Post-Invoke::={allow}"),
    ]);
    run::run(install.args(["install", "--yes", "--no-install-recommends"]).args(packages))?;
    // Services of packages that were already installed are not changed.
    for service in units_of(&SERVICES, packages) {
        run::run(Command::new("update-rc.d").args([service, "disable"]))?;
    }
    let units = units_of(&UNITS, packages);
    if !units.is_empty() && Path::new(SYSTEMCTL).exists() {
        run::run(Command::new(SYSTEMCTL).arg("disable").args(units))?;
    }
    Ok(())
}

/// Returns the services or units in `list` that belong to `packages`.
fn units_of(list: &[(&str, &'static str)], packages: &[&str]) -> Vec<&'static str> {
    list.iter().filter(|(package, _)| packages.contains(package)).map(|(_, name)| *name).collect()
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "--quiet",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    command
}

fn needed(routers: bool) -> Vec<&'static str> {
    LAB_PACKAGES
        .iter()
        .chain(ROUTER_PACKAGES.iter().filter(|_| routers))
        .map(|(package, _)| *package)
        .collect()
}

fn missing_from(needed: &[&'static str], installed: &str) -> Vec<&'static str> {
    let is_installed =
        |package: &str| installed.lines().any(|line| line == format!("{package} installed"));
    needed.iter().copied().filter(|package| !is_installed(package)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_only_config_files_is_missing() {
        let output = "iproute2 installed\nnftables config-files\niptables not-installed\nopenssl installed\ncurl installed\n";
        let missing =
            ["nftables", "iptables", "jq", "iputils-arping", "ndisc6", "tcpdump", "keepalived"];
        assert_eq!(missing_from(&needed(false), output), missing);
        assert_eq!(missing_from(&needed(false), "").len(), LAB_PACKAGES.len());
    }

    #[test]
    fn router_packages_are_needed_only_for_routers() {
        let all = needed(false)
            .iter()
            .map(|package| format!("{package} installed\n"))
            .collect::<String>();
        assert!(missing_from(&needed(false), &all).is_empty());
        assert_eq!(missing_from(&needed(true), &all), ["frr", "bird2"]);
    }

    #[test]
    fn only_services_of_new_packages_are_disabled() {
        assert_eq!(units_of(&SERVICES, &["curl", "bird2"]), ["bird"]);
        assert_eq!(units_of(&SERVICES, &["docker.io"]), ["docker"]);
        assert_eq!(units_of(&UNITS, &["docker.io"]), ["docker.socket", "containerd.service"]);
        assert!(units_of(&UNITS, &["frr", "bird2"]).is_empty());
    }
}

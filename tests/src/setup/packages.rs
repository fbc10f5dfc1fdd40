//! The Debian packages a lab uses, and nothing else: installed by `apt-get` when they are missing.

use crate::run;
use anyhow::{Context, Result};
use std::process::Command;

/// Package, and who uses it.
const NEEDED: [(&str, &str); 8] = [
    ("iproute2", "ip: namespaces, links, addresses, neighbours"),
    ("nftables", "kube-proxy in nftables mode"),
    ("iptables", "kube-proxy in iptables mode"),
    ("openssl", "the control plane's keys"),
    ("curl", "pages fetched from inside a namespace"),
    ("iputils-arping", "who answers for an address on the wire"),
    ("ndisc6", "the same of IPv6"),
    ("keepalived", "the yardstick of `cargo lab bench failover`"),
];

/// The packages that are not installed.
///
/// # Errors
/// When this is no Debian system.
pub fn missing() -> Result<Vec<&'static str>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
        .args(NEEDED.map(|(package, _)| package))
        .output()
        .context("cannot start dpkg-query: the lab is made for Debian")?;
    // It fails when a package is unknown to it, and still prints the known ones.
    Ok(missing_from(&String::from_utf8_lossy(&output.stdout)))
}

/// Installs packages; the package lists are fetched first, since a fresh machine has none.
///
/// # Errors
/// When `apt-get` fails, with its last words.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    run::run(apt_get().arg("update")).context("cannot fetch the package lists; is there a network?")?;
    run::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages))?;
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "-o", "DPkg::Lock::Timeout=300"]);
    command
}

fn missing_from(installed: &str) -> Vec<&'static str> {
    let have = |package: &str| installed.lines().any(|line| line == format!("{package} installed"));
    NEEDED.iter().map(|(package, _)| *package).filter(|package| !have(package)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_whose_settings_stayed_is_missing() {
        let said =
            "iproute2 installed\nnftables config-files\niptables not-installed\nopenssl installed\ncurl installed\n";
        assert_eq!(missing_from(said), ["nftables", "iptables", "iputils-arping", "ndisc6", "keepalived"]);
        assert_eq!(missing_from("").len(), NEEDED.len());
    }
}

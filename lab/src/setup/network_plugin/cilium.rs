//! Cilium: its agent, CNI plugin and operator, built in the Go module `lab/cilium`, and its chart,
//! rendered with the values of that folder. The agent compiles its BPF programs itself, by clang.

use super::image::PluginImage;
use crate::cluster::apply;
use crate::cluster::kubeadm::{config, machine};
use crate::run;
use crate::setup::build_cache::Inputs;
use crate::setup::kubernetes::KubernetesVersion;
use crate::setup::{go, installers, packages, repository};
use crate::topology::Host;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Version of Cilium, which `lab/cilium/go.mod` requires.
pub(super) const VERSION: &str = "v1.20.2";
const MODULE: &str = "github.com/cilium/cilium";
/// Directory of the chart in the module.
const CHART: &str = "install/kubernetes/cilium";
/// Packages of the programs in the module.
const PACKAGES: [&str; 4] = ["daemon", "plugins/cilium-cni", "cilium-dbg", "operator"];
/// Build tag of the operator that assigns ranges of pods to nodes.
const TAGS: &str = "ipam_provider_operator";
/// Scripts in the module, and their paths in the image.
const SCRIPTS: [(&str, &str); 3] = [
    ("plugins/cilium-cni/install-plugin.sh", "/install-plugin.sh"),
    ("plugins/cilium-cni/cni-uninstall.sh", "/cni-uninstall.sh"),
    ("images/cilium/init-container.sh", "/init-container.sh"),
];
/// Sources of the BPF programs in the module, and their path in the image.
const BPF: (&str, &str) = ("bpf", "/var/lib/cilium/bpf");
/// Debian package of the compiler, in the version of Cilium's own image.
const COMPILER_PACKAGE: &str = "clang-19";
/// The compiler, which finds its libraries beside it, and its link in the image.
const COMPILER: &str = "/usr/lib/llvm-19/bin/clang";
const COMPILER_LINK: (&str, &str) = ("../lib/llvm-19/bin/clang", "/usr/bin/clang");
/// Files of the module `lab/cilium` that determine the build.
const SOURCES: [&str; 4] =
    ["go.mod", "go.sum", "mcs-controllers-stub/go.mod", "mcs-controllers-stub/stub.go"];

fn folder() -> PathBuf {
    repository().join("lab/cilium")
}

/// Returns the objects of the chart, with `settings` such as `kubeProxyReplacement=true` in
/// addition to the values of `lab/cilium`.
pub(super) fn objects(settings: &[&str]) -> Result<Vec<Value>> {
    let mut helm = installers::helm()?;
    helm.args(["template", "cilium"]).arg(go::source(MODULE, VERSION)?.join(CHART));
    helm.args(["--namespace", "kube-system"]);
    helm.args(["--kube-version", &KubernetesVersion::Newest.name()?]);
    helm.arg("--values").arg(folder().join("values.yaml"));
    // Without kube-proxy, the agent cannot use the API server's cluster IP.
    let [server, _] = Host::node(1).addresses();
    let server = format!("k8sServiceHost={server},k8sServicePort={}", config::API_PORT);
    for setting in [server.as_str()].iter().chain(settings) {
        helm.args(["--set", setting]);
    }
    apply::objects(&run::run(&mut helm)?)
}

/// Checks this computer, and installs the package that shows which BPF programs it has.
///
/// # Errors
/// If machines cannot have control groups of version 2. Cilium's programs would then apply to every
/// process of this computer.
pub(super) fn prepare() -> Result<()> {
    ensure!(
        machine::UNIFIED_GROUPS.iter().any(|groups| Path::new(groups).exists()),
        "Cilium needs a control group of version 2 for each machine: none of {:?} exists",
        machine::UNIFIED_GROUPS
    );
    packages::install(&packages::missing_of(&[packages::BPFTOOL])?)
}

/// Returns the inputs of [`images`].
///
/// # Errors
/// If a file of the module `lab/cilium` cannot be read.
pub(super) fn inputs() -> Result<Inputs> {
    SOURCES
        .iter()
        .map(|&name| {
            let file = folder().join(name);
            let content =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Ok((name.to_owned(), content))
        })
        .collect()
}

/// Builds the programs below `work`, and returns the content of the images.
pub(super) fn images(work: &Path) -> Result<Vec<PluginImage>> {
    packages::install(&packages::missing_of(&[COMPILER_PACKAGE])?)?;
    let programs = work.join("programs");
    let paths = PACKAGES.map(|package| format!("{MODULE}/{package}"));
    go::install_in(&folder(), &programs, &paths.each_ref().map(String::as_str), &["-tags", TAGS])?;
    let source = go::source(MODULE, VERSION)?;
    let link = work.join("clang");
    symlink(COMPILER_LINK.0, &link)?;
    let mut files = vec![
        (programs.join("daemon"), "/usr/bin/cilium-agent"),
        (programs.join("cilium-dbg"), "/usr/bin/cilium-dbg"),
        (programs.join("cilium-cni"), "/opt/cni/bin/cilium-cni"),
        (source.join(BPF.0), BPF.1),
        (link, COMPILER_LINK.1),
    ];
    files.extend(SCRIPTS.map(|(script, inside)| (source.join(script), inside)));
    let operator = "/usr/bin/cilium-operator-generic";
    Ok(vec![
        PluginImage {
            component: "cilium",
            files,
            entrypoint: None,
            system: &SYSTEM,
            own: &[COMPILER],
            iptables: true,
        },
        PluginImage {
            component: "operator-generic",
            files: vec![(programs.join("operator"), operator)],
            entrypoint: None,
            system: &[],
            own: &[],
            iptables: false,
        },
    ])
}

/// Programs that the agent and the scripts of its image start.
const SYSTEM: [&str; 18] = [
    "/bin/bash",
    "/bin/sh",
    "/bin/basename",
    "/bin/cat",
    "/bin/cp",
    "/bin/dirname",
    "/bin/find",
    "/bin/grep",
    "/bin/ip",
    "/bin/mkdir",
    "/bin/mount",
    "/bin/mv",
    "/bin/rm",
    "/bin/sed",
    "/bin/umount",
    "/sbin/ipset",
    "/sbin/nft",
    "/sbin/tc",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_requires_the_version() {
        let text = fs::read_to_string(folder().join("go.mod")).unwrap();
        assert!(text.contains(&format!("require {MODULE} {VERSION}\n")));
    }

    #[test]
    fn programs_of_the_module_are_its_tools() {
        let text = fs::read_to_string(folder().join("go.mod")).unwrap();
        for package in PACKAGES {
            assert!(text.contains(&format!("\t{MODULE}/{package}\n")), "{package}");
        }
    }
}

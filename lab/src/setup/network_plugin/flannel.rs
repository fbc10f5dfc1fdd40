//! Flannel: its daemon, and its CNI plugin.

use super::image::PluginImage;
use super::manifest;
use crate::cluster::apply;
use crate::run;
use crate::setup::go;
use crate::topology::PLUGIN_POD_RANGES;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) const VERSION: &str = "v0.28.10";
const MODULE: &str = "github.com/flannel-io/flannel";
const MANIFEST: &str = "Documentation/kube-flannel.yml";
/// Backends that the daemon is built without: `tencentvpc` needs a module that the module proxy
/// refuses, and `udp` needs a C compiler.
const LEFT_OUT: [&str; 2] = ["tencentvpc", "udp"];
/// Part of the names of modules that only a backend of [`LEFT_OUT`] needs.
const UNUSED_MODULES: &str = "/tencentcloud/";
/// The CNI plugin, in the last version of the CNI project's plugins that contains it: the module
/// proxy refuses the module of later versions.
const CNI_PLUGIN: (&str, &str) =
    ("github.com/containernetworking/plugins/plugins/meta/flannel", "v0.9.1");
/// Newest version of the CNI specification that this plugin supports.
const CNI_VERSION: &str = "0.4.0";
/// Directory of CNI plugins in the manifest, and on the machines.
const CNI_FOLDERS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// Returns the objects of the manifest, for a cluster of two families.
pub(super) fn objects() -> Result<Vec<Value>> {
    let text = fs::read_to_string(go::source(MODULE, VERSION)?.join(MANIFEST))?;
    adapt(&text)
}

fn adapt(text: &str) -> Result<Vec<Value>> {
    let [published, own] = CNI_FOLDERS;
    let mut objects = apply::objects(&manifest::replace(text, published, own)?)?;
    let [v4, v6] = PLUGIN_POD_RANGES;
    manifest::change_config(&mut objects, "net-conf.json", |config| {
        config["Network"] = json!(v4);
        config["EnableIPv6"] = json!(true);
        config["IPv6Network"] = json!(v6);
    })?;
    manifest::change_config(&mut objects, "cni-conf.json", |config| {
        config["cniVersion"] = json!(CNI_VERSION);
    })?;
    Ok(objects)
}

/// Builds the programs below `work`, and returns the content of the images.
pub(super) fn images(work: &Path) -> Result<Vec<PluginImage>> {
    let [daemon, plugin] = ["daemon", "plugin"].map(|folder| work.join(folder));
    let source = source_without_backends(work)?;
    go::install_in(&source, &daemon, &[".", "./cmd/install_conf"], &[])?;
    let (package, version) = CNI_PLUGIN;
    go::install(&plugin, &[package], version)?;
    Ok(vec![
        PluginImage {
            component: "flannel",
            files: vec![
                (daemon.join("flannel"), "/opt/bin/flanneld"),
                (daemon.join("install_conf"), "/opt/bin/install-conf"),
            ],
            entrypoint: None,
            system: &["/bin/ip"],
            own: &[],
            iptables: true,
        },
        PluginImage {
            component: "flannel-cni-plugin",
            files: vec![(plugin.join("flannel"), "/flannel")],
            entrypoint: None,
            system: &["/bin/cp"],
            own: &[],
            iptables: false,
        },
    ])
}

/// Copies the module below `work`, without the backends of [`LEFT_OUT`].
fn source_without_backends(work: &Path) -> Result<PathBuf> {
    let source = work.join("source");
    run::run(Command::new("cp").arg("-r").arg(go::source(MODULE, VERSION)?).arg(&source))?;
    let is_left_out =
        |line: &str| LEFT_OUT.iter().any(|it| line.ends_with(&format!("/pkg/backend/{it}\"")));
    remove_lines(&source.join("main.go"), is_left_out)?;
    remove_lines(&source.join("go.mod"), |line| line.contains(UNUSED_MODULES))?;
    Ok(source)
}

/// Removes lines from a file.
fn remove_lines(file: &Path, is_removed: impl Fn(&str) -> bool) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let kept = text.lines().filter(|line| !is_removed(line)).map(|line| format!("{line}\n"));
    let kept: String = kept.collect();
    anyhow::ensure!(kept.len() < text.len(), "{} has no such line", file.display());
    // Files of Go's module cache may be read-only, and so may be their copies.
    fs::remove_file(file)?;
    Ok(fs::write(file, kept)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_gets_two_families_and_the_machines_folder() {
        let text = "kind: ConfigMap\ndata:\n  cni-conf.json: '{\"cniVersion\": \"1.0.0\"}'\n  net-conf.json: '{\"Network\": \"10.0.0.0/8\"}'\n---\nkind: DaemonSet\npath: /opt/cni/bin/flannel\n";
        let objects = adapt(text).unwrap();
        assert_eq!(objects[1]["path"], "/usr/lib/cni/flannel");
        let config = objects[0]["data"]["net-conf.json"].as_str().unwrap();
        for range in PLUGIN_POD_RANGES {
            assert!(config.contains(range), "{config}");
        }
        assert_eq!(objects[0]["data"]["cni-conf.json"], "{\"cniVersion\":\"0.4.0\"}");
    }
}

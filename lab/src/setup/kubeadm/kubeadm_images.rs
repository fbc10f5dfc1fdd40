//! Images that kubeadm requires, under the names that it uses, and the image of a pod that serves
//! pages.

use super::PROGRAMS;
use crate::run;
use crate::setup::images::Arch;
use crate::setup::images::archive::{self, ImageArchiveEntry, Layer};
use crate::setup::images::tree;
use crate::setup::{go, kubernetes};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Version of the images' format; a change rebuilds them.
pub(super) const FORMAT_VERSION: &str = "2";
/// Programs that kube-proxy runs in nftables mode; iptables mode has others.
const PROXY_TOOLS: [&str; 1] = ["/usr/sbin/nft"];
/// Go module of CoreDNS.
const COREDNS: &str = "github.com/coredns/coredns";
/// Path, in the module of Kubernetes, of the source of the program in every pod's sandbox.
const PAUSE: &str = "build/pause/linux/pause.c";

/// Returns the names of the images that kubeadm requires.
pub(super) fn image_names(programs: &Path, version: &str) -> Result<Vec<String>> {
    let mut kubeadm = Command::new(programs.join("kubeadm"));
    let output =
        run::run(kubeadm.args(["config", "images", "list", "--kubernetes-version", version]))?;
    Ok(output.lines().map(str::to_owned).collect())
}

/// Returns the image of `component`, as in `registry/path/component:version`.
pub(super) fn find<'a>(names: &'a [String], component: &str) -> Result<&'a str> {
    let is_of_component = |name: &&String| {
        name.rsplit('/').next().and_then(|last| last.split(':').next()) == Some(component)
    };
    names
        .iter()
        .find(is_of_component)
        .map(String::as_str)
        .with_context(|| format!("kubeadm requires no image of {component}"))
}

/// Builds all images into one archive in `folder`.
pub(super) fn make(
    programs: &Path,
    root: &Path,
    names: &[String],
    arch: Arch,
    folder: &Path,
) -> Result<()> {
    let kubernetes = kubernetes_layer(programs, &folder.join("kubernetes"))?;
    let proxy = proxy_layer(root, &folder.join("proxy"))?;
    let dns = find(names, "coredns")?;
    let coredns = coredns_layer(dns, &folder.join("coredns"))?;
    let pause = pause_layer(&folder.join("pause"))?;
    let image = |name: &str, layers: &[&Layer], entrypoint: &[&str]| ImageArchiveEntry {
        names: vec![name.to_owned()],
        layers: layers.iter().copied().cloned().collect(),
        entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
        user: "",
        labels: BTreeMap::new(),
    };
    let mut images = Vec::new();
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
        images.push(image(find(names, component)?, &[&kubernetes], &[]));
    }
    images.push(image(find(names, "kube-proxy")?, &[&kubernetes, &proxy], &[]));
    images.push(image(dns, &[&coredns], &["/coredns"]));
    images.push(image(find(names, "pause")?, &[&pause], &["/pause"]));
    archive::save(&images, arch, &folder.join("kubernetes.tar"))?;
    for part in ["kubernetes", "proxy", "coredns", "pause"] {
        fs::remove_dir_all(folder.join(part))?;
        fs::remove_file(folder.join(part).with_extension("layer"))?;
    }
    Ok(())
}

fn kubernetes_layer(programs: &Path, tree: &Path) -> Result<Layer> {
    let bin = tree.join("usr/local/bin");
    fs::create_dir_all(&bin)?;
    fs::copy(programs.join("node"), bin.join("node"))?;
    PROGRAMS.iter().try_for_each(|program| symlink("node", bin.join(program)))?;
    fs::create_dir(tree.join("tmp"))?;
    Layer::pack(tree)
}

fn proxy_layer(root: &Path, tree: &Path) -> Result<Layer> {
    fs::create_dir_all(tree)?;
    tree::copy_programs(tree, root, &PROXY_TOOLS)?;
    tree::copy_iptables(tree, root)?;
    Layer::pack(tree)
}

fn coredns_layer(name: &str, tree: &Path) -> Result<Layer> {
    fs::create_dir_all(tree)?;
    let version = name.rsplit(':').next().context("the image name has no version")?;
    let mut go = go::command()?;
    go.env("GOBIN", tree).args(["install", "-ldflags", "-s -w", &format!("{COREDNS}@{version}")]);
    run::run(&mut go).context("CoreDNS does not build")?;
    Layer::pack(tree)
}

fn pause_layer(tree: &Path) -> Result<Layer> {
    fs::create_dir_all(tree)?;
    let source = kubernetes::module()?.join(PAUSE);
    let mut gcc = Command::new("gcc");
    gcc.args(["-Os", "-static", "-s", "-DVERSION=lab", "-o"]).arg(tree.join("pause")).arg(source);
    run::run(&mut gcc).context("pause does not build")?;
    Layer::pack(tree)
}

/// Image of the lab's pods: the lab's own program, which serves pages, and a shell, with this
/// machine's libraries.
#[derive(Clone, Copy, Debug)]
pub struct PodImage;

impl PodImage {
    /// Name of the image.
    pub const NAME: &str = "ferrolb/lab:0";

    /// Builds the image into `folder`.
    ///
    /// # Errors
    /// If the program does not exist.
    pub fn make(program: &Path, folder: &Path) -> Result<()> {
        let tree = folder.join("pod");
        fs::create_dir_all(&tree)?;
        let inside = program.to_str().context("the path is not UTF-8")?;
        tree::copy_programs(&tree, Path::new("/"), &[inside, "/bin/sh"])?;
        let image = ImageArchiveEntry {
            names: vec![Self::NAME.to_owned()],
            layers: vec![Layer::pack(&tree)?],
            entrypoint: vec![inside.to_owned()],
            user: "",
            labels: BTreeMap::new(),
        };
        archive::save(&[image], Arch::own(), &folder.join("pod.tar"))?;
        fs::remove_dir_all(&tree)?;
        Ok(fs::remove_file(tree.with_extension("layer"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_by_its_component() {
        let names =
            ["r.io/kube-proxy:v1.36.3", "r.io/coredns/coredns:v1.14.2", "r.io/pause:3.10.2"]
                .map(str::to_owned);
        assert_eq!(find(&names, "coredns").unwrap(), "r.io/coredns/coredns:v1.14.2");
        assert_eq!(find(&names, "pause").unwrap(), "r.io/pause:3.10.2");
        assert_eq!(
            find(&names, "proxy").unwrap_err().to_string(),
            "kubeadm requires no image of proxy"
        );
    }
}

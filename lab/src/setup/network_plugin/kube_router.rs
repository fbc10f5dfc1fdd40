//! kube-router: one program, which sets up the pod network by BGP between the nodes and enforces
//! network policies. kube-proxy stays, because kube-router's own service proxy needs IPVS.

use super::image::PluginImage;
use super::manifest;
use crate::cluster::apply;
use crate::setup::go;
use crate::topology::SERVICE_RANGES;
use anyhow::Result;
use serde_json::Value;
use std::fs;
use std::path::Path;

pub(super) const VERSION: &str = "v2.1.0";
const MODULE: &str = "github.com/cloudnativelabs/kube-router/v2";
const PACKAGE: &str = "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router";
/// The manifest of the pod network and the firewall, without the service proxy.
const MANIFEST: &str = "daemonset/kubeadm-kuberouter.yaml";
/// Path of the program in the image.
const PROGRAM: &str = "/usr/local/bin/kube-router";
/// Flags for a cluster of two families. All nodes are on one segment, and a kernel without IPIP has
/// no tunnel between them.
const FLAGS: [&str; 2] = ["--enable-overlay=false", "--enable-ipv6=true"];

/// Returns the objects of the manifest.
pub(super) fn objects() -> Result<Vec<Value>> {
    let text = fs::read_to_string(go::source(MODULE, VERSION)?.join(MANIFEST))?;
    let mut objects = apply::objects(&text)?;
    let ranges = format!("--service-cluster-ip-range={}", SERVICE_RANGES.join(","));
    let flags = FLAGS.into_iter().chain([ranges.as_str()]).collect::<Vec<_>>();
    manifest::add_arguments(&mut objects, "DaemonSet", &flags)?;
    Ok(objects)
}

/// Builds the program below `work`, and returns the content of the image.
pub(super) fn images(work: &Path) -> Result<Vec<PluginImage>> {
    let programs = work.join("programs");
    go::install(&programs, &[PACKAGE], VERSION)?;
    Ok(vec![PluginImage {
        component: "kube-router",
        files: vec![(programs.join("kube-router"), PROGRAM)],
        entrypoint: Some(PROGRAM),
        // The init container is a shell script.
        system: &["/bin/sh", "/bin/cp", "/bin/mv", "/bin/rm", "/bin/ip", "/sbin/ipset"],
        own: &[],
        iptables: true,
    }])
}

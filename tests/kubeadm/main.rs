//! FerroLB as it is installed: its images in pods of a cluster that kubeadm made, whose kubelets, containerd and runc are real. Needs root rights and a
//! machine with cgroup v1; each test raises a lab of its own.

mod bgp;
mod client;
mod from_zero;
mod memory;
mod power_off;
mod rights;
mod single_node;
mod uninstall;
mod upgrade;
mod web;

use ferrolb_tests::{Options, stage};

/// A control plane and two nodes that may announce.
fn three_nodes(name: &str) -> Options {
    Options { kubeadm: true, ..Options::named(name) }
}

//! Tests of installed FerroLB: its images run in pods of a cluster that kubeadm has set up, with
//! real kubelets, containerd and runc. The tests need root and a machine with cgroup v1. Each test
//! starts a lab of its own.

mod bgp;
mod bgp_migration;
mod client;
mod container_privileges;
mod from_zero;
mod guide;
mod install_command;
mod memory;
mod metallb;
mod migration;
mod platforms;
mod power_off;
mod registry;
mod single_node;
mod stand_ins;
mod stopped_speakers;
mod uninstall;
mod upgrade;
mod web;

use ferrolb_lab::{Options, scenario};

/// Returns the options of a lab with a control plane and two nodes that may announce.
fn three_nodes(name: &str) -> Options {
    Options { kubeadm: true, ..Options::named(name) }
}

//! kube-router, installed before FerroLB.

mod bgp;

use crate::scenario::step;
use crate::steps::{self, First};
use crate::{health, power, restart, upgrade};
use ferrolb_lab::Options;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;

const PLUGIN: NetworkPlugin = NetworkPlugin::KubeRouter;

fn options(name: &str) -> Options {
    Options { kubeadm: true, network_plugin: Some(PLUGIN), ..Options::named(name) }
}

#[test]
fn events_move_addresses_on_kube_router() {
    steps::run(&options("kuberoutermore"), First::Plugin, &["kube-bridge"], |lab, servers| {
        step("a failed health check moves an address", || health::check(lab, servers))?;
        step("kube-router, the speakers and the owner restart or drain", || {
            restart::check(lab, PLUGIN, servers)
        })?;
        step("kube-router is upgraded", || upgrade::check(lab, PLUGIN, servers))?;
        step("machines lose power, and start again", || power::check(lab, servers))
    });
}

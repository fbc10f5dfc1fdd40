//! kube-router, installed before FerroLB.

use crate::steps::{self, First};
use crate::{health, restart};
use ferrolb_lab::Options;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;

#[test]
fn events_move_addresses_on_kube_router() {
    let plugin = NetworkPlugin::KubeRouter;
    let options =
        Options { kubeadm: true, network_plugin: Some(plugin), ..Options::named("kuberoutermore") };
    steps::run(&options, First::Plugin, &["kube-bridge"], |lab, servers| {
        health::check(lab, servers)?;
        restart::check(lab, plugin, servers)
    });
}

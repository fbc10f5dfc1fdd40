//! Flannel, with kube-proxy in iptables mode. FerroLB is installed first.

use crate::steps::{self, First};
use crate::{health, restart};
use ferrolb_lab::Options;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;

#[test]
fn events_move_addresses_on_flannel() {
    let plugin = NetworkPlugin::Flannel;
    let options = Options {
        kubeadm: true,
        network_plugin: Some(plugin),
        proxy_mode: Some("iptables".to_owned()),
        ..Options::named("flannelmore")
    };
    steps::run(&options, First::FerroLb, &["flannel.1", "flannel-v6.1"], |lab, servers| {
        health::check(lab, servers)?;
        restart::check(lab, plugin, servers)
    });
}

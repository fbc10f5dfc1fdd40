//! kube-router for the pod network and network policies. kube-proxy is in nftables mode.
//! FerroLB is installed first.

use crate::steps::{self, First};
use ferrolb_lab::Options;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;

#[test]
fn services_are_served_on_kube_router() {
    let options = Options {
        kubeadm: true,
        network_plugin: Some(NetworkPlugin::KubeRouter),
        ..Options::named("kuberouter")
    };
    steps::run(&options, First::FerroLb, &["kube-bridge"], |_, _| Ok(()));
}

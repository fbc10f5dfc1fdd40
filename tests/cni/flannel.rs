//! Flannel with its default backend, vxlan. kube-proxy is in iptables mode, the default of kind and
//! kubeadm.

use crate::steps::{self, First};
use ferrolb_lab::Options;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;

#[test]
fn services_are_served_on_flannel() {
    let options = Options {
        kubeadm: true,
        network_plugin: Some(NetworkPlugin::Flannel),
        proxy_mode: Some("iptables".to_owned()),
        ..Options::named("flannel")
    };
    steps::run(&options, First::Plugin, &["flannel.1", "flannel-v6.1"], |_, _| Ok(()));
}

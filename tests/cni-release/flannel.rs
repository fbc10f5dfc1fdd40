//! Flannel, with kube-proxy in iptables mode.

mod host_gateway;

use crate::scenario::step;
use crate::steps::{self, First};
use crate::{health, kube_proxy, power, restart, upgrade};
use ferrolb_lab::Options;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;

const PLUGIN: NetworkPlugin = NetworkPlugin::Flannel;

fn options(name: &str) -> Options {
    Options {
        kubeadm: true,
        network_plugin: Some(PLUGIN),
        proxy_mode: Some("iptables".to_owned()),
        ..Options::named(name)
    }
}

#[test]
fn events_move_addresses_on_flannel() {
    let links = ["flannel.1", "flannel-v6.1"];
    steps::run(&options("flannelmore"), First::FerroLb, &links, |lab, servers| {
        step("a failed health check moves an address", || health::check(lab, servers))?;
        step("Flannel, the speakers and the owner restart or drain", || {
            restart::check(lab, PLUGIN, servers)
        })?;
        step("Flannel is upgraded", || upgrade::check(lab, PLUGIN, servers))?;
        step("machines lose power, and start again", || power::check(lab, servers))
    });
}

#[test]
fn kube_proxy_and_the_backend_of_flannel_change() {
    steps::run(&options("flannelchange"), First::Plugin, &["flannel.1"], |lab, servers| {
        step("kube-proxy is deleted, and put back", || kube_proxy::check(lab, servers))?;
        step("the backend changes", || host_gateway::check(lab, servers))?;
        step("check has no finding", || steps::check_clean(lab))?;
        step("a failed health check moves an address", || health::check(lab, servers))?;
        step("Flannel, the speakers and the owner restart or drain", || {
            restart::check(lab, PLUGIN, servers)
        })
    });
}

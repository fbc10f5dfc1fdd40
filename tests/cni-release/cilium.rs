//! Cilium with the defaults of its chart, with kube-proxy and in place of it. Changes of the
//! chart's values restart the agents while addresses are announced.

mod announcements;
mod host_firewall;
mod pool;
mod replacement;
mod upgrade;

use crate::health;
use crate::power;
use crate::restart;
use crate::scenario::{print_measured, step};
use crate::steps::{self, First};
use anyhow::Result;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::{Lab, Options, wait};
use serde_json::Value;

const PLUGIN: NetworkPlugin = NetworkPlugin::Cilium;
const LINKS: [&str; 3] = ["cilium_host", "cilium_net", "cilium_vxlan"];
const ROLLOUT_MAX: &str = "--timeout=300s";

#[test]
fn events_move_addresses_on_cilium() {
    steps::run(&options("cilium"), First::Plugin, &LINKS, |lab, servers| {
        step("a failed health check moves an address", || health::check(lab, servers))?;
        // Restarts and upgrades of Cilium keep the processors busy.
        step("machines lose power, and start again", || power::check(lab, servers))?;
        restart::check(lab, PLUGIN, servers)?;
        upgrade::check(lab, servers)?;
        pool::check(lab, servers, &[])
    });
}

#[test]
fn cilium_replaces_kube_proxy_and_gives_it_back() {
    steps::run(&options("ciliumproxy"), First::FerroLb, &LINKS, |lab, servers| {
        replacement::replace(lab, servers)?;
        replacement::give_back(lab, servers)?;
        replacement::replace(lab, servers)?;
        restart::check(lab, PLUGIN, servers)
    });
}

#[test]
fn other_parts_of_cilium_are_named() {
    steps::run(&options("ciliumparts"), First::Plugin, &LINKS, |lab, servers| {
        replacement::replace(lab, servers)?;
        pool::check(lab, servers, &[replacement::VALUE])?;
        announcements::check(lab, servers)?;
        host_firewall::check(lab, servers)
    });
}

fn options(name: &str) -> Options {
    Options { kubeadm: true, network_plugin: Some(PLUGIN), ..Options::named(name) }
}

/// Waits until `check` has no finding, and prints the time.
fn clean(lab: &Lab, cause: &str) -> Result<()> {
    let start = wait::now();
    steps::check_clean(lab)?;
    let after = start.elapsed().as_secs_f64();
    print_measured(&format!("check is clean {after:.1} s after the {cause}"));
    Ok(())
}

/// Changes the values of Cilium's chart, and waits until its pods have restarted.
fn configure(lab: &Lab, values: &[&str]) -> Result<()> {
    lab.configure_network_plugin(values)?;
    for workload in ["daemonset/cilium", "deployment/cilium-operator"] {
        lab.kubectl(&["-n", "kube-system", "rollout", "status", workload, ROLLOUT_MAX])?;
    }
    Ok(())
}

/// Returns status, reason and message of a condition of a Service, without the group `ferrolb.io`.
fn condition(lab: &Lab, service: &str, kind: &str) -> Result<String> {
    let object = lab.get(&format!("/api/v1/namespaces/default/services/{service}"))?;
    let conditions = object["status"]["conditions"].as_array();
    let kind = format!("ferrolb.io/{kind}");
    let found = conditions.into_iter().flatten().find(|it| it["type"] == *kind);
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let parts = |it| ["status", "reason", "message"].map(|field| text(it, field)).join(" ");
    Ok(found.map(parts).unwrap_or_default())
}

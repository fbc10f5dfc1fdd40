//! Change of Flannel's backend from vxlan to host-gw while addresses are announced.

use crate::client::{NamedServer, PROBE_INTERVAL, PROBE_TIME_MAX, run_without_loss};
use crate::scenario::print_measured;
use crate::workload::{self, Servers};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::{Lab, wait};
use serde_json::{Value, json};
use std::time::Duration;

const CONFIG: &str = "/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg";
const FILE: &str = "net-conf.json";
const ROLLOUT_MAX: &str = "--timeout=240s";
/// Maximum time until a restarted Flannel has set its routes, on a busy machine.
const ROUTES_MAX: Duration = Duration::from_secs(60);

/// Changes the backend node by node. Nodes with different backends have no route to each other's
/// pods, so only addresses with policy Local keep all connections.
pub(crate) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    let [v4, v6] = servers.local;
    let local: [NamedServer<'_>; 2] = [("local", v4), ("local IPv6", v6)];
    let report = run_without_loss(lab, "change to host-gw", &local, || {
        let probing = lab.start_probe(servers.open[0], PROBE_TIME_MAX, PROBE_INTERVAL);
        change(lab)?;
        lab.nodes().iter().try_for_each(|node| wait_direct(lab, node))?;
        probing.stop()
    })?;
    print_measured(&format!(
        "    open: {} of {} connections lost, longest gap {:.0} ms",
        report.lost, report.sent, report.longest_gap_ms
    ));
    workload::check_pages(lab, servers)
}

fn change(lab: &Lab) -> Result<()> {
    let map = lab.get(CONFIG)?;
    let text = map["data"][FILE].as_str().context("the ConfigMap has the settings")?;
    let mut settings: Value = serde_json::from_str(text)?;
    settings["Backend"] = json!({"Type": "host-gw"});
    let patch = json!({"data": {FILE: settings.to_string()}}).to_string();
    let (namespace, name) = NetworkPlugin::Flannel.daemon_set();
    let daemon_set = format!("daemonset/{name}");
    lab.kubectl(&["-n", namespace, "patch", "configmap", "kube-flannel-cfg", "-p", &patch])?;
    lab.kubectl(&["-n", namespace, "rollout", "restart", &daemon_set])?;
    lab.kubectl(&["-n", namespace, "rollout", "status", &daemon_set, ROLLOUT_MAX]).map(drop)
}

/// Waits until a node reaches the pods of all others through the others' own addresses.
fn wait_direct(lab: &Lab, node: &str) -> Result<()> {
    let is_direct = |line: &&str| line.starts_with("10.244.") && line.contains(" via 172.30.");
    wait::until(&format!("{node} has direct routes"), ROUTES_MAX, || {
        let routes = lab.exec(node, &["ip", "route"])?;
        let direct = routes.lines().filter(is_direct).count();
        ensure!(direct == lab.nodes().len() - 1, "{node} has the routes {routes}");
        Ok(Some(()))
    })
}

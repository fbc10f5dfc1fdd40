//! Restart of the plugin on the owner of an address, rolling restart of the speakers, and drain of
//! the owner, while clients connect.

use crate::client::{NamedServer, run_without_loss};
use crate::workload::Servers;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use std::collections::BTreeMap;
use std::time::Duration;

const ROLLOUT_MAX: &str = "--timeout=180s";
/// Time in which a restarted plugin has set up the pod network again, such as its BGP sessions.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Number of drains, and time of each.
const DRAINS: usize = 3;
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Restarts the plugin on the owner of an address, then all speakers one by one, and drains the
/// owner several times.
pub(crate) fn check(lab: &Lab, plugin: NetworkPlugin, servers: &Servers) -> Result<()> {
    let named = named(servers);
    let (namespace, name) = plugin.daemon_set();
    let on_owner = format!("spec.nodeName={}", owner(lab, servers)?);
    run_without_loss(lab, &format!("restart of {plugin}"), &named, || {
        let daemon_set = format!("daemonset/{name}");
        let path = "jsonpath={.spec.selector.matchLabels}";
        let labels = lab.kubectl(&["-n", namespace, "get", &daemon_set, "-o", path])?;
        let pods = ["-l", &selector(&labels)?, "--field-selector", &on_owner];
        lab.kubectl(&[&["-n", namespace, "delete", "pods"], &pods[..]].concat())?;
        rollout(lab, namespace, &["status", &daemon_set, ROLLOUT_MAX])?;
        wait::during(SETTLE_TIME, || Ok(()))
    })?;
    run_without_loss(lab, "rolling restart of the speakers", &named, || {
        rollout(lab, NAMESPACE, &["restart", "daemonset/speaker"])?;
        rollout(lab, NAMESPACE, &["status", "daemonset/speaker", ROLLOUT_MAX])
    })?;
    (0..DRAINS).try_for_each(|_| drain(lab, servers))
}

/// Drains the owner for a while, and checks that another node owns the addresses then.
fn drain(lab: &Lab, servers: &Servers) -> Result<()> {
    let owner = owner(lab, servers)?;
    run_without_loss(lab, &format!("drain of {owner}"), &named(servers), || {
        lab.kubectl(&["annotate", "node", &owner, "ferrolb.io/drain="])?;
        wait::during(DRAIN_TIME, || Ok(()))?;
        for server in servers.local {
            let now = lab.owner_of(server.ip())?;
            let has_moved = now.as_ref().is_some_and(|now| *now != owner);
            ensure!(has_moved, "{now:?} owns {server} during the drain of {owner}");
        }
        lab.kubectl(&["annotate", "node", &owner, "ferrolb.io/drain-"]).map(drop)
    })
}

fn owner(lab: &Lab, servers: &Servers) -> Result<String> {
    lab.owner_of(servers.local[0].ip())?.context("a node owns the address")
}

/// Returns the addresses to which clients connect during an event.
pub(crate) const fn named(servers: &Servers) -> [NamedServer<'static>; 4] {
    let Servers { open, local } = servers;
    [("open", open[0]), ("open IPv6", open[1]), ("local", local[0]), ("local IPv6", local[1])]
}

fn rollout(lab: &Lab, namespace: &str, arguments: &[&str]) -> Result<()> {
    lab.kubectl(&[&["-n", namespace, "rollout"], arguments].concat()).map(drop)
}

/// Returns labels, a JSON object, as a selector of kubectl.
fn selector(labels: &str) -> Result<String> {
    let labels: BTreeMap<String, String> = serde_json::from_str(labels)?;
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Ok(pairs.join(","))
}

//! Waits until a lab has settled: all components have processed recent changes, so that a
//! measurement can begin.

use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::cluster::nodes::proxy_name;
use crate::lab::PROXY_HEALTH_PORT;
use crate::lab::admin::metric;
use crate::topology::CONTROL_PLANE;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::{self, CustomResourceKind, IPAddressPoolObject, SpeakerStatusObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Maximum time for a lab to settle.
pub(super) const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Maximum time until the controller writes nothing more. It writes 100 conditions per second.
const WRITES_MAX: Duration = Duration::from_secs(240);
/// Interval between two readings of the controller's writes.
const READING_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until every speaker receives hellos from all others and every pool has the condition
/// `Valid`.
///
/// # Errors
/// If that takes more than a minute, with the number of speakers or pools that have reached this
/// state.
pub fn wait_settled(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes().len();
    lab.api(async |client| {
        wait::until_async("all speakers receive hellos from all others", SETTLE_MAX, async || {
            let connected = speakers(&client)
                .await?
                .iter()
                .filter(|speaker| receives_from(speaker, nodes - 1))
                .count();
            ensure!(
                connected == nodes,
                "{connected} of {nodes} speakers receive hellos from all others"
            );
            Ok(Some(()))
        })
        .await
    })?;
    wait_for_pools(lab)
}

/// Powers a node on and waits until its kube-proxy and its speaker are ready.
///
/// # Errors
/// If the kube-proxy or the speaker does not become ready.
pub fn power_on_and_wait(lab: &Lab, node: &str) -> Result<()> {
    lab.power_on(node)?;
    lab.wait_healthy(&proxy_name(node), node, PROXY_HEALTH_PORT, "/healthz")?;
    lab.wait_healthy(&speaker_name(node), node, ADMIN_PORT, "/readyz")
}

/// Waits until every pool has the condition `Valid`, that is, until the controller uses it.
///
/// # Errors
/// If that takes more than a minute.
pub(super) fn wait_for_pools(lab: &Lab) -> Result<()> {
    lab.api(async |client| {
        wait::until_async("the pools are in use", SETTLE_MAX, async || {
            let unused = pools(&client).await?.iter().filter(|pool| !is_valid(pool)).count();
            ensure!(unused == 0, "{unused} pools are not in use");
            Ok(Some(()))
        })
        .await
    })
}

/// Waits until the speakers report that together they own `count` addresses.
///
/// # Errors
/// If the speakers do not own `count` addresses within `limit`, with the number of owned addresses.
pub(super) fn wait_for_owners(lab: &Lab, count: i64, limit: Duration) -> Result<()> {
    lab.api(async |client| {
        wait::until_async("the speakers own all addresses", limit, async || {
            let owned: i64 = speakers(&client)
                .await?
                .iter()
                .filter_map(|speaker| Some(speaker.status.as_ref()?.owned_addresses))
                .sum();
            ensure!(owned == count, "the speakers own {owned} of {count} addresses");
            Ok(Some(()))
        })
        .await
    })
}

/// Waits until the speaker of `node` reports that it owns `count` addresses, and all others report
/// none.
///
/// # Errors
/// If the speakers report other numbers after `limit`, with the number that each speaker reports.
pub(super) fn wait_for_owner(lab: &Lab, node: &str, count: i64, limit: Duration) -> Result<()> {
    lab.api(async |client| {
        wait::until_async(&format!("{node} owns all addresses"), limit, async || {
            let speakers = speakers(&client).await?;
            let owned = |speaker: &SpeakerStatusObject| {
                speaker.status.as_ref().map_or(0, |status| status.owned_addresses)
            };
            let owned: BTreeMap<_, _> = speakers
                .iter()
                .map(|speaker| (speaker.metadata.name.clone().unwrap_or_default(), owned(speaker)))
                .collect();
            let all =
                owned.iter().all(|(name, owned)| *owned == if name == node { count } else { 0 });
            ensure!(
                all && owned.contains_key(node),
                "{node} should own {count} addresses, and the speakers own {owned:?}"
            );
            Ok(Some(()))
        })
        .await
    })
}

/// Returns the node that reports each address as owned.
///
/// # Errors
/// If the API server does not reply.
pub(super) fn owners(lab: &Lab) -> Result<BTreeMap<IpAddr, String>> {
    lab.api(async |client| {
        let owned = |speaker: SpeakerStatusObject| {
            let node = speaker.metadata.name.unwrap_or_default();
            let interfaces = speaker.status.into_iter().flat_map(|status| status.interfaces);
            interfaces
                .flat_map(|interface| interface.addresses)
                .map(move |address| (address, node.clone()))
        };
        Ok(speakers(&client).await?.into_iter().flat_map(owned).collect())
    })
    .context("cannot list the owners of the addresses")
}

async fn speakers(client: &Client) -> Result<Vec<SpeakerStatusObject>> {
    let resource = api::resource(CustomResourceKind::SpeakerStatus, api::GROUP);
    let speakers: Api<SpeakerStatusObject> =
        Api::namespaced_with(client.clone(), api::NAMESPACE, &resource);
    Ok(speakers.list(&ListParams::default()).await?.items)
}

async fn pools(client: &Client) -> Result<Vec<IPAddressPoolObject>> {
    let resource = api::resource(CustomResourceKind::IPAddressPool, api::GROUP);
    let pools: Api<IPAddressPoolObject> =
        Api::namespaced_with(client.clone(), api::NAMESPACE, &resource);
    Ok(pools.list(&ListParams::default()).await?.items)
}

/// Returns whether a speaker receives hellos from `others` speakers on one of its interfaces.
fn receives_from(speaker: &SpeakerStatusObject, others: usize) -> bool {
    speaker
        .status
        .iter()
        .flat_map(|status| &status.interfaces)
        .any(|interface| interface.heard.len() == others)
}

fn is_valid(pool: &IPAddressPoolObject) -> bool {
    let is_true = |condition: &Condition| {
        condition.type_ == api::CONDITION_VALID && condition.status == "True"
    };
    pool.status.iter().flat_map(|status| &status.conditions).any(is_true)
}

/// Returns the number of addresses that the speakers own together, by their metrics.
pub(super) fn owned_addresses(lab: &Lab) -> Result<f64> {
    lab.nodes().iter().map(|node| metric(lab, node, "ferrolb_speaker_owned_addresses")).sum()
}

/// Waits until the speakers own `services` addresses, and the controller has written nothing for
/// `quiet`.
pub(super) fn wait_no_writes(lab: &Lab, services: usize, quiet: Duration) -> Result<()> {
    let mut last = (f64::NAN, wait::now());
    wait::until("the controller writes nothing more", WRITES_MAX, || {
        wait::during(READING_INTERVAL, || Ok(()))?;
        let writes = metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")?;
        let owned = owned_addresses(lab)?;
        if writes != last.0 || owned != services as f64 {
            last = (writes, wait::now());
        }
        let elapsed = last.1.elapsed();
        ensure!(
            elapsed >= quiet,
            "the speakers own {owned} addresses, and the last of {writes} writes was {} s ago",
            elapsed.as_secs()
        );
        Ok(Some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn speaker(interfaces: &Value) -> SpeakerStatusObject {
        let object = json!({
            "metadata": {"name": "node1"},
            "status": {"version": "0", "interfaces": interfaces, "draining": false, "ownedAddresses": 0},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn hellos_on_one_interface_are_enough() {
        let interface = |heard: Value| json!({"name": "eth0", "mac": "02:fb:00:00:00:0b", "up": true, "heard": heard});
        for (interfaces, expect) in [
            (json!([interface(json!(["node2", "node3"]))]), true),
            (json!([interface(json!([])), interface(json!(["node2", "node3"]))]), true),
            (json!([interface(json!(["node2"])), interface(json!(["node3"]))]), false),
            (json!([]), false),
        ] {
            assert_eq!(receives_from(&speaker(&interfaces), 2), expect, "{interfaces}");
        }
    }

    #[test]
    fn a_pool_with_condition_valid_is_in_use() {
        let condition = |status: &str| json!({"type": "Valid", "status": status, "reason": "a", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        for (conditions, expect) in [
            (json!([condition("True")]), true),
            (json!([condition("False")]), false),
            (json!([]), false),
        ] {
            let object = json!({
                "metadata": {"name": "a"}, "spec": {"addresses": ["172.31.0.0/20"]},
                "status": {"assignedIPv4": 0, "assignedIPv6": 0, "conditions": conditions},
            });
            assert_eq!(is_valid(&serde_json::from_value(object).unwrap()), expect, "{conditions}");
        }
    }
}

//! Selection of a pool: by the labels of the Namespace and of the Service. Of several matching
//! pools, the one with the lowest number in `priority` is used first.

use crate::pools::{self, pool, pool_for};
use crate::scenario::step;
use crate::services::{self, service};
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// The first addresses of the pool without selectors, and the first address of each pool with
/// selectors.
const SHARED_POOL: [&str; 3] = ["172.30.2.0", "172.30.2.1", "172.30.2.2"];
const TEAM_POOL: &str = "172.30.2.100";
const VIP_POOL: &str = "172.30.2.110";
const EDGE_POOL: &str = "172.30.2.120";

pub(crate) fn part(lab: &Lab) -> Result<()> {
    let for_warm = |priority: u8| json!({"namespaceSelectors": [{"matchLabels": {"color": "warm"}}], "priority": priority});
    step("a Service gets no address from a pool whose namespaceSelectors do not match", || {
        lab.apply_objects(&[
            pool_for("team", "172.30.2.100/31", for_warm(20)),
            service("web", json!({})),
        ])?;
        services::wait_refused(lab, "web", "NoPoolMatches")
    })?;
    step("the Service gets an address when its Namespace gets the label", || {
        label_namespace(lab, Some("warm"))?;
        wait_address(lab, "web", TEAM_POOL)
    })?;
    step(
        "the pool with the lower priority value is used first, and assigned addresses stay",
        || {
            lab.apply_objects(&[pool_for("vip", "172.30.2.110", for_warm(10))])?;
            pools::wait_valid(lab, "vip", true)?;
            lab.apply_objects(&[service("second", json!({}))])?;
            wait_address(lab, "second", VIP_POOL)?;
            wait_address(lab, "web", TEAM_POOL)
        },
    )?;
    step("without the label no pool matches, and the addresses are released", || {
        label_namespace(lab, None)?;
        services::wait_refused(lab, "web", "NoPoolMatches")?;
        services::wait_refused(lab, "second", "NoPoolMatches")
    })?;
    step("with the label again, Services get addresses in the order of their names", || {
        label_namespace(lab, Some("warm"))?;
        wait_address(lab, "second", VIP_POOL)?;
        wait_address(lab, "web", TEAM_POOL)
    })?;
    step(
        "without the label, the Services get addresses from the pool without selectors, by name",
        || {
            lab.apply_objects(&[pool("all", &["172.30.2.0/28"])])?;
            label_namespace(lab, None)?;
            wait_address(lab, "second", SHARED_POOL[0])?;
            wait_address(lab, "web", SHARED_POOL[1])
        },
    )?;
    step(
        "a labeled Service gets an address from the pool that selects it, until it loses the label",
        || {
            let selected = json!({"serviceSelectors": [{"matchExpressions": [{"key": "tier", "operator": "Exists"}]}]});
            let mut labeled = service("labeled", json!({}));
            labeled["metadata"]["labels"] = json!({"tier": "edge"});
            lab.apply_objects(&[pool_for("edge", "172.30.2.120", selected)])?;
            pools::wait_valid(lab, "edge", true)?;
            lab.apply_objects(&[labeled])?;
            wait_address(lab, "labeled", EDGE_POOL)?;
            services::patch(lab, "labeled", &json!({"metadata": {"labels": null}}))?;
            wait_address(lab, "labeled", SHARED_POOL[2])
        },
    )
}

fn wait_address(lab: &Lab, name: &str, address: &str) -> Result<()> {
    services::wait_addresses(lab, name, &[address])
}

/// Sets the label of the Services' Namespace, or removes it.
fn label_namespace(lab: &Lab, color: Option<&str>) -> Result<()> {
    lab.api(async |client| {
        let patch = json!({"metadata": {"labels": {"color": color}}});
        let namespaces: Api<Namespace> = Api::all(client);
        let labels = namespaces
            .patch("default", &PatchParams::default(), &Patch::Merge(&patch))
            .await?
            .metadata
            .labels;
        let current = labels.as_ref().and_then(|labels| labels.get("color"));
        ensure!(current.map(String::as_str) == color, "the Namespace has the labels {labels:?}");
        Ok(())
    })
}

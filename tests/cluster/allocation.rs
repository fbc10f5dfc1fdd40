//! Selection of a pool: by the labels of the Namespace and of the Service, and among several pools
//! by the lower priority.

use crate::pools::{self, pool, pool_for};
use crate::scenario::step;
use crate::services::{self, service};
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// The first addresses of the pool for all Services, and the first address of each selective pool.
const ALL: [&str; 3] = ["172.30.2.0", "172.30.2.1", "172.30.2.2"];
const TEAM: &str = "172.30.2.100";
const PREFERRED: &str = "172.30.2.110";
const EDGE: &str = "172.30.2.120";

pub(crate) fn part(lab: &Lab) -> Result<()> {
    let warm = |priority: u8| json!({"namespaceSelectors": [{"matchLabels": {"colour": "warm"}}], "priority": priority});
    step(
        "a Service gets nothing from a pool for Namespaces with a label that its own lacks",
        || {
            lab.apply_objects(&[
                pool_for("team", "172.30.2.100/31", warm(20)),
                service("web", json!({})),
            ])?;
            services::wait_refused(lab, "web", "NoPoolMatches")
        },
    )?;
    step("as soon as the Namespace has the label, the Service has its address", || {
        label_namespace(lab, Some("warm"))?;
        has(lab, "web", TEAM)
    })?;
    step(
        "of two such pools the one with the lower priority goes first, and nobody moves for it",
        || {
            lab.apply_objects(&[pool_for("vip", "172.30.2.110", warm(10))])?;
            pools::wait_valid(lab, "vip", true)?;
            lab.apply_objects(&[service("second", json!({}))])?;
            has(lab, "second", PREFERRED)?;
            has(lab, "web", TEAM)
        },
    )?;
    step("when the label goes and no other pool is there, so do the addresses", || {
        label_namespace(lab, None)?;
        services::wait_refused(lab, "web", "NoPoolMatches")?;
        services::wait_refused(lab, "second", "NoPoolMatches")
    })?;
    step("and when it comes back, so do they, by name", || {
        label_namespace(lab, Some("warm"))?;
        has(lab, "second", PREFERRED)?;
        has(lab, "web", TEAM)
    })?;
    step("where there is a pool for all, they move there, by name", || {
        lab.apply_objects(&[pool("all", &["172.30.2.0/28"])])?;
        label_namespace(lab, None)?;
        has(lab, "second", ALL[0])?;
        has(lab, "web", ALL[1])
    })?;
    step(
        "a Service with a label gets an address from the pool for it, and loses it with the label",
        || {
            let selected = json!({"serviceSelectors": [{"matchExpressions": [{"key": "tier", "operator": "Exists"}]}]});
            let mut labelled = service("labelled", json!({}));
            labelled["metadata"]["labels"] = json!({"tier": "edge"});
            lab.apply_objects(&[pool_for("edge", "172.30.2.120", selected)])?;
            pools::wait_valid(lab, "edge", true)?;
            lab.apply_objects(&[labelled])?;
            has(lab, "labelled", EDGE)?;
            services::patch(lab, "labelled", &json!({"metadata": {"labels": null}}))?;
            has(lab, "labelled", ALL[2])
        },
    )
}

fn has(lab: &Lab, name: &str, address: &str) -> Result<()> {
    services::wait_addresses(lab, name, &[address])
}

/// Sets the label of the Services' Namespace, or removes it.
fn label_namespace(lab: &Lab, colour: Option<&str>) -> Result<()> {
    lab.api(async |client| {
        let patch = json!({"metadata": {"labels": {"colour": colour}}});
        let namespaces: Api<Namespace> = Api::all(client);
        let labels = namespaces
            .patch("default", &PatchParams::default(), &Patch::Merge(&patch))
            .await?
            .metadata
            .labels;
        let now = labels.as_ref().and_then(|labels| labels.get("colour"));
        ensure!(now.map(String::as_str) == colour, "its labels are {labels:?}");
        Ok(())
    })
}

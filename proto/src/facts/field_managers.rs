//! The field managers that own parts of a Service, from `metadata.managedFields`. Pure; the
//! controller decides by them whether another client wrote an address.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::api::FIELD_MANAGER_PREFIX;

/// JSON pointer of the addresses in the fields of an entry.
const INGRESS: &str = "/f:status/f:loadBalancer/f:ingress";
/// Maximum number of entries of `managedFields` that are decoded from a Service.
const MANAGERS_MAX: usize = 16;

/// `metadata.managedFields`, reduced to the entries of FerroLB's controllers, and to those with a
/// part of the status. Of the fields, only `status` and `status.loadBalancer.ingress` remain.
#[derive(Deserialize, Default)]
#[serde(transparent)]
pub(super) struct ManagedFields(Option<Vec<Entry>>);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    manager: String,
    fields_v1: Option<Fields>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    #[serde(rename = "f:status")]
    status: Option<StatusFields>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusFields {
    #[serde(rename = "f:loadBalancer")]
    load_balancer: Option<LoadBalancerFields>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct LoadBalancerFields {
    #[serde(rename = "f:ingress")]
    ingress: Option<IgnoredAny>,
}

impl Entry {
    fn has_status(&self) -> bool {
        self.fields_v1.as_ref().is_some_and(|fields| fields.status.is_some())
    }

    fn has_ingress(&self) -> bool {
        let status = self.fields_v1.as_ref().and_then(|fields| fields.status.as_ref());
        let load_balancer = status.and_then(|status| status.load_balancer.as_ref());
        load_balancer.is_some_and(|fields| fields.ingress.is_some())
    }
}

/// The owners of the fields of a Service, as seen by one controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldOwners {
    /// The owner of `status.loadBalancer.ingress`, unless this controller owns it.
    pub(super) ingress: Option<Box<str>>,
    /// An owner of another part of the status, such as a condition, unless it is FerroLB.
    pub(super) status: Option<Box<str>>,
    /// True if this controller owns any field.
    pub(super) includes_own: bool,
    /// True if this controller owns a part of the status.
    pub(super) includes_own_status: bool,
}

impl FieldOwners {
    /// Reads the owners. `own` is the field manager of this controller.
    pub(super) fn read(metadata: &ObjectMeta, own: &str) -> Self {
        let mut owners = Self::default();
        let mut own_ingress = false;
        for entry in metadata.managed_fields.iter().flatten() {
            let manager = entry.manager.as_deref().unwrap_or_default();
            let fields = entry.fields_v1.as_ref();
            let has_ingress = fields.is_some_and(|fields| fields.0.pointer(INGRESS).is_some());
            if manager == own {
                owners.includes_own = true;
                owners.includes_own_status |= fields.is_some();
                own_ingress |= has_ingress;
            } else if has_ingress {
                owners.ingress = Some(manager.into());
            } else if fields.is_some() && !manager.starts_with(FIELD_MANAGER_PREFIX) {
                owners.status = Some(manager.into());
            }
        }
        owners.ingress = owners.ingress.filter(|_| !own_ingress);
        owners
    }
}

impl From<ManagedFields> for Vec<ManagedFieldsEntry> {
    fn from(ManagedFields(entries): ManagedFields) -> Self {
        let is_ours = |it: &Entry| it.manager.starts_with(FIELD_MANAGER_PREFIX);
        let mut relevant = entries.unwrap_or_default();
        relevant.retain(|it| it.has_status() || is_ours(it));
        // The most important entries come first, so that the limit cuts off the others.
        relevant.sort_by_key(|it| (!is_ours(it), !it.has_ingress()));
        let ingress = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
        let status = json!({"f:status": {}});
        let fields = |entry: &Entry| match entry.has_ingress() {
            true => Some(ingress.clone()),
            false => entry.has_status().then(|| status.clone()),
        };
        let entry = |entry: Entry| ManagedFieldsEntry {
            fields_v1: fields(&entry).map(FieldsV1),
            manager: Some(entry.manager),
            ..ManagedFieldsEntry::default()
        };
        relevant.into_iter().take(MANAGERS_MAX).map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::metadata::read_with_managers;
    use super::*;

    fn owners(managed_fields: serde_json::Value) -> FieldOwners {
        let metadata = json!({"name": "web", "managedFields": managed_fields});
        FieldOwners::read(&read_with_managers(metadata).unwrap(), "ferrolb-controller.x")
    }

    fn entry(manager: &str, fields: serde_json::Value) -> serde_json::Value {
        json!({"manager": manager, "operation": "Update", "subresource": "status",
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn the_owner_of_the_ingress_is_another_manager_or_none() {
        let ingress = || json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
        let empty = || json!({"f:status": {"f:loadBalancer": {}, "f:conditions": {}}});
        let own = "ferrolb-controller.x";
        let cases = [
            (json!(null), None, false),
            (json!([]), None, false),
            (json!([entry("k3s", ingress())]), Some("k3s"), false),
            (json!([entry("k3s", empty()), entry("kubectl", json!({"f:spec": {}}))]), None, false),
            (json!([entry(own, empty())]), None, true),
            (json!([entry(own, json!({"f:metadata": {}}))]), None, true),
            (json!([entry(own, empty()), entry("k3s", ingress())]), Some("k3s"), true),
            (json!([entry(own, ingress()), entry("k3s", ingress())]), None, true),
            (
                json!([entry("ferrolb-controller.y", ingress())]),
                Some("ferrolb-controller.y"),
                false,
            ),
            (json!([{"manager": "old"}, {}]), None, false),
        ];
        for (fields, ingress, includes_own) in cases {
            let found = owners(fields.clone());
            let ingress = ingress.map(Into::into);
            assert_eq!((&found.ingress, found.includes_own), (&ingress, includes_own), "{fields}");
            let is_metadata = fields.to_string().contains("f:metadata");
            assert_eq!(found.includes_own_status, includes_own && !is_metadata, "{fields}");
        }
    }

    #[test]
    fn another_owner_of_a_part_of_the_status_is_named_and_ferrolbs_entries_are_never_cut_off() {
        let condition = || json!({"f:status": {"f:conditions": {}}});
        let ingress = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
        let own = "ferrolb-controller.x";
        for (fields, status) in [
            (json!([entry("cilium", condition())]), Some("cilium")),
            (json!([entry("cilium", condition()), entry(own, condition())]), Some("cilium")),
            (json!([entry("k3s", ingress.clone())]), None),
            (json!([entry("kubectl", json!({"f:spec": {}}))]), None),
            (json!([entry("ferrolb-controller.y", condition())]), None),
        ] {
            assert_eq!(owners(fields.clone()).status.as_deref(), status, "{fields}");
        }
        let mut all: Vec<_> =
            (0..2 * MANAGERS_MAX).map(|it| entry(&format!("m{it}"), condition())).collect();
        all.extend([entry("k3s", ingress), entry(own, condition())]);
        let found = owners(json!(all));
        assert!(found.includes_own && found.ingress.as_deref() == Some("k3s"), "{found:?}");
    }
}

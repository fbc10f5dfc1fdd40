//! The status fields that the CRD of a custom resource defines in the cluster. Under another API
//! group than FerroLB's own, MetalLB's CRDs apply, and the API server rejects status fields that
//! these CRDs do not define. FerroLB finds the defined fields in the API server's OpenAPI document
//! of the group, which every authenticated user may read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::CustomResourceKind;

/// The status fields that the cluster's CRD of a custom resource defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusFields {
    /// All fields of FerroLB's status, because the CRD is FerroLB's own.
    All,
    /// These fields only.
    Only(BTreeSet<Box<str>>),
}

impl StatusFields {
    /// Returns whether the CRD defines a status field of this name.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(fields) => fields.contains(field),
        }
    }
}

/// The parts of the OpenAPI v3 document of one version of a group
/// (`/openapi/v3/apis/GROUP/VERSION`) that FerroLB reads. The default value has no kinds, as in a
/// cluster without the group.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OpenApiDocument {
    paths: BTreeMap<String, IgnoredAny>,
    components: Components,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Components {
    schemas: BTreeMap<String, Schema>,
}

/// The schema of any object in the document. For custom resources, the server writes it in full,
/// without references.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Schema {
    #[serde(rename = "x-kubernetes-group-version-kind")]
    names: Vec<GroupVersionKindName>,
    properties: Properties,
}

#[derive(Debug, Deserialize)]
struct GroupVersionKindName {
    group: String,
    version: String,
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
struct Properties {
    status: Option<StatusSchema>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusSchema {
    properties: BTreeMap<Box<str>, IgnoredAny>,
}

impl OpenApiDocument {
    /// Returns the status fields of a kind under `group`, or `None` if the document describes only
    /// another version than [`CustomResourceKind::version`], or no CRD of the kind. A status
    /// without listed fields, or without the status subresource, has no fields that can be written.
    #[must_use]
    pub fn status_fields(&self, kind: CustomResourceKind, group: &str) -> Option<StatusFields> {
        let is = |name: &GroupVersionKindName| {
            name.group == group && name.version == kind.version() && name.kind == kind.name()
        };
        let schema = self.components.schemas.values().find(|schema| schema.names.iter().any(is))?;
        let path = format!(
            "/apis/{group}/{}/namespaces/{{namespace}}/{}/{{name}}/status",
            kind.version(),
            kind.plural()
        );
        let written = schema.properties.status.as_ref().filter(|_| self.paths.contains_key(&path));
        let fields = written.map(|status| status.properties.keys().cloned().collect());
        Some(StatusFields::Only(fields.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::VERSION;

    const GROUP: &str = "metallb.io";

    /// Returns an OpenAPI document of IPAddressPools with these properties, in the format of
    /// Kubernetes 1.36.
    fn document(properties: &Value, path: &str) -> OpenApiDocument {
        let gvk = |kind: &str| json!([{"group": GROUP, "kind": kind, "version": VERSION}]);
        let path =
            format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/ipaddresspools/{path}");
        let status_of_meta = json!({"type": "string", "description": "Status of the operation."});
        let text = json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes CRD Swagger"},
            "paths": {(path): {"get": {"tags": ["metallbIo_v1beta1"]}, "patch": {}}},
            "components": {"schemas": {
                "io.k8s.apimachinery.pkg.apis.meta.v1.Status": {"type": "object", "properties": {"status": status_of_meta}},
                "io.k8s.apimachinery.pkg.apis.meta.v1.Time": {"type": "string", "format": "date-time"},
                "io.metallb.v1beta1.IPAddressPool": {
                    "type": "object", "properties": properties, "x-kubernetes-group-version-kind": gvk("IPAddressPool"),
                },
                "io.metallb.v1beta1.IPAddressPoolList": {
                    "type": "object", "properties": {"items": {"type": "array"}},
                    "x-kubernetes-group-version-kind": gvk("IPAddressPoolList"),
                },
            }},
        });
        serde_json::from_str(&text.to_string()).unwrap()
    }

    #[test]
    fn status_fields_need_a_schema_and_the_status_subresource() {
        let number = json!({"type": "integer", "format": "int64"});
        let counts = json!({"status": {
            "type": "object", "required": ["assignedIPv4"],
            "properties": {"assignedIPv4": number, "availableIPv4": number},
        }});
        let cases = [
            ("two fields", counts.clone(), "{name}/status", &["assignedIPv4", "availableIPv4"][..]),
            ("no subresource", counts, "{name}", &[]),
            ("an empty status", json!({"status": {"type": "object"}}), "{name}/status", &[]),
            ("no status", json!({"spec": {"type": "object"}}), "{name}/status", &[]),
        ];
        for (case, properties, path, expect) in cases {
            let fields =
                document(&properties, path).status_fields(CustomResourceKind::IPAddressPool, GROUP);
            let expect = expect.iter().map(|field| (*field).into()).collect();
            assert_eq!(fields, Some(StatusFields::Only(expect)), "the case is: {case}");
        }
    }

    /// Returns an OpenAPI document of BGPPeers in this API version.
    fn bgp_peer_document(version: &str) -> OpenApiDocument {
        let path =
            format!("/apis/{GROUP}/{version}/namespaces/{{namespace}}/bgppeers/{{name}}/status");
        let text = json!({"paths": {(path): {}}, "components": {"schemas": {"peer": {
            "x-kubernetes-group-version-kind": [{"group": GROUP, "kind": "BGPPeer", "version": version}],
            "properties": {"status": {"properties": {"conditions": {"type": "array"}}}},
        }}}});
        serde_json::from_str(&text.to_string()).unwrap()
    }

    #[test]
    fn a_kind_is_found_under_its_own_version() {
        let fields = StatusFields::Only(["conditions".into()].into());
        assert_eq!(
            bgp_peer_document("v1beta2").status_fields(CustomResourceKind::BGPPeer, GROUP),
            Some(fields)
        );
    }

    #[test]
    fn an_unserved_kind_has_no_status_fields() {
        let properties = json!({"status": {"type": "object"}});
        let document = document(&properties, "{name}/status");
        assert_eq!(
            document.status_fields(CustomResourceKind::Community, GROUP),
            None,
            "the document describes another kind"
        );
        assert_eq!(
            document.status_fields(CustomResourceKind::IPAddressPool, "ferrolb.io"),
            None,
            "the document describes another API group"
        );
        assert_eq!(
            bgp_peer_document("v1beta1").status_fields(CustomResourceKind::BGPPeer, GROUP),
            None,
            "the document describes another version"
        );
        assert_eq!(
            OpenApiDocument::default().status_fields(CustomResourceKind::IPAddressPool, GROUP),
            None,
            "the document is empty"
        );
        let without_schemas: OpenApiDocument =
            serde_json::from_str(r#"{"openapi": "3.0.0", "paths": {}}"#).unwrap();
        assert_eq!(
            without_schemas.status_fields(CustomResourceKind::IPAddressPool, GROUP),
            None,
            "the document contains no schemas"
        );
    }
}

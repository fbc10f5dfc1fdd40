//! What we read of an EndpointSlice (`discovery.k8s.io/v1`, KEP-752).

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::Key;

/// Selects the slices that kube-proxy reads: those of a Service, but for a headless one (`discovery.k8s.io/v1`,
/// `service.kubernetes.io/headless`).
pub const SLICES_OF_SERVICES: &str = "kubernetes.io/service-name,!service.kubernetes.io/headless";
/// The label that names a slice's Service (`discovery.k8s.io/v1`).
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An EndpointSlice as decoded off the wire.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::discovery::v1::EndpointSlice")]
#[serde(rename_all = "camelCase")]
pub struct SliceObject {
    /// `metadata`.
    pub metadata: ObjectMeta,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<RawEndpoint>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    conditions: RawConditions,
    node_name: Option<String>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

/// One endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `nodeName`; an endpoint without one is on no node.
    pub node: Option<Box<str>>,
    /// `conditions.ready`; absent means ready.
    pub ready: bool,
    /// `conditions.serving`; absent means as `ready`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
}

/// What we know of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Namespace and name.
    pub key: Key,
    /// The Service it belongs to; none without the label.
    pub service: Option<Key>,
    /// Its endpoints, those that nothing here tells apart once; empty for `addressType: FQDN`, which kube-proxy ignores.
    pub endpoints: Vec<Endpoint>,
}

impl From<SliceObject> for Slice {
    fn from(object: SliceObject) -> Self {
        let key = Key::of(&object.metadata);
        let service = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let service = service.map(|name| Key::new(&key.namespace, name));
        let raw = if object.address_type == "FQDN" { None } else { object.endpoints };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for endpoint in raw.into_iter().flatten().map(Endpoint::from) {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        Self { key, service, endpoints }
    }
}

impl From<RawEndpoint> for Endpoint {
    fn from(raw: RawEndpoint) -> Self {
        let ready = raw.conditions.ready.unwrap_or(true);
        Self {
            node: raw.node_name.map(Into::into),
            ready,
            serving: raw.conditions.serving.unwrap_or(ready),
            terminating: raw.conditions.terminating.unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_conditions_mean_ready_and_null_lists_mean_empty() {
        let slice: SliceObject = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "node1"},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}}]
        }))
        .expect("slice");
        let slice = Slice::from(slice);
        assert_eq!(slice.service, Some(Key::new("default", "web")));
        assert_eq!(
            slice.endpoints,
            [
                Endpoint { node: Some("node1".into()), ready: true, serving: true, terminating: false },
                Endpoint { node: None, ready: false, serving: true, terminating: true }
            ]
        );
        let empty = json!({"metadata": {"name": "x"}, "addressType": "IPv6", "endpoints": null});
        assert_eq!(Slice::from(serde_json::from_value::<SliceObject>(empty).expect("slice")).endpoints, []);
    }

    #[test]
    fn endpoints_that_look_alike_count_once() {
        let endpoint = |node: &str, ready: bool| json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": {"ready": ready}});
        let endpoints = [("a", true), ("a", true), ("b", true), ("a", false), ("b", true)]
            .map(|(node, ready)| endpoint(node, ready));
        let slice = json!({"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": endpoints});
        let slice = Slice::from(serde_json::from_value::<SliceObject>(slice).expect("slice"));
        let kept: Vec<_> = slice.endpoints.iter().map(|endpoint| (endpoint.node.as_deref(), endpoint.ready)).collect();
        assert_eq!(kept, [(Some("a"), true), (Some("b"), true), (Some("a"), false)]);
    }

    #[test]
    fn names_that_only_dns_knows_are_no_endpoints() {
        let fqdn =
            json!({"metadata": {"name": "x"}, "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}]});
        assert_eq!(Slice::from(serde_json::from_value::<SliceObject>(fqdn).expect("slice")).endpoints, []);
    }
}

//! The fact of an EndpointSlice (`discovery.k8s.io/v1`, KEP-752).

use super::kind::built_in;
use std::net::IpAddr;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::Key;
use super::metadata::{self, SERVICE_NAME_LABEL};
use crate::range::Family;

/// Label selector of the EndpointSlices that kube-proxy reads: those of Services that are not
/// headless (`discovery.k8s.io/v1`, `service.kubernetes.io/headless`).
pub const SERVICE_SLICES_SELECTOR: &str =
    "kubernetes.io/service-name,!service.kubernetes.io/headless";

/// Namespace and name of the Service whose endpoints are the API servers.
const API_SERVER: (&str, &str) = ("default", "kubernetes");
/// The largest number of addresses of API servers that are stored. Without this limit, everybody
/// who may write EndpointSlices could add any number.
pub const API_SERVERS_MAX: usize = 64;

/// Returns the key of the Service whose endpoints are the API servers.
#[must_use]
pub fn api_server() -> Key {
    Key::new(API_SERVER.0, API_SERVER.1)
}

/// Returns whether the endpoints of a Service are the API servers.
#[must_use]
pub fn is_api_server(service: &Key) -> bool {
    (service.namespace(), service.name()) == API_SERVER
}

/// A decoded EndpointSlice.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::discovery::v1::EndpointSlice")]
#[serde(rename_all = "camelCase")]
pub struct EndpointSliceObject {
    /// `metadata`.
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<RawEndpoint>>,
    #[serde(default)]
    ports: Option<Vec<RawEndpointPort>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    addresses: Vec<String>,
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

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct RawEndpointPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

/// One endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `nodeName`. An endpoint without a node name is local to no node.
    pub node: Option<Box<str>>,
    /// `addressType` of the EndpointSlice. kube-proxy forwards traffic for a Service's address only
    /// to endpoints of the same family.
    pub family: Family,
    /// `conditions.ready`; absent means ready.
    pub ready: bool,
    /// `conditions.serving`; absent means the value of `ready`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
}

/// The address of an endpoint, for health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointAddress {
    /// The first entry of the endpoint's `addresses`. All entries belong to the same pod.
    pub address: IpAddr,
    /// The index of the address's endpoint in [`EndpointSlice::endpoints`].
    pub endpoint: usize,
}

impl EndpointAddress {
    /// Returns whether a health check may connect to this address from the node's network. Returns
    /// false for loopback and link-local addresses, so that the author of an EndpointSlice cannot
    /// make the speaker connect to the node itself or to a cloud's metadata server.
    #[must_use]
    pub const fn may_be_probed(&self) -> bool {
        let local = match self.address.to_canonical() {
            IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let address = self.address.to_canonical();
        !local && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
    }
}

/// The fact of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub key: Key,
    /// The Service of the EndpointSlice; `None` if the label `kubernetes.io/service-name` is
    /// missing.
    pub service: Option<Key>,
    /// The endpoints. Endpoints that differ only in their addresses are stored once. Empty for
    /// `addressType: FQDN` and unknown types, which kube-proxy ignores.
    pub endpoints: Vec<Endpoint>,
    /// One address of each endpoint of the EndpointSlice, including endpoints that share an entry
    /// in `endpoints`.
    pub endpoint_addresses: Vec<EndpointAddress>,
    /// The name and number of each TCP port. The name is empty if the port has none. Pods with
    /// different port numbers are in different EndpointSlices.
    pub ports: Vec<(Box<str>, u16)>,
}

impl From<EndpointSliceObject> for EndpointSlice {
    fn from(object: EndpointSliceObject) -> Self {
        let key = Key::of(&object.metadata);
        let service =
            object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        let service = service.map(|name| Key::new(key.namespace(), name));
        let family = match &*object.address_type {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let (mut endpoints, mut endpoint_addresses) = (Vec::<Endpoint>::new(), Vec::new());
        for raw in object.endpoints.into_iter().flatten() {
            let Some(family) = family else { break };
            let address = raw.addresses.first().and_then(|text| text.parse().ok());
            let endpoint = raw.read(family);
            let known = endpoints.iter().position(|other| *other == endpoint);
            let index = known.unwrap_or(endpoints.len());
            if known.is_none() {
                endpoints.push(endpoint);
            }
            endpoint_addresses
                .extend(address.map(|address| EndpointAddress { address, endpoint: index }));
        }
        let ports =
            object.ports.into_iter().flatten().filter_map(RawEndpointPort::tcp_port).collect();
        Self { key, service, endpoints, endpoint_addresses, ports }
    }
}

impl RawEndpoint {
    fn read(self, family: Family) -> Endpoint {
        let ready = self.conditions.ready.unwrap_or(true);
        Endpoint {
            node: self.node_name.map(Into::into),
            family,
            ready,
            serving: self.conditions.serving.unwrap_or(ready),
            terminating: self.conditions.terminating.unwrap_or(false),
        }
    }
}

impl RawEndpointPort {
    fn tcp_port(self) -> Option<(Box<str>, u16)> {
        let tcp = self.protocol.as_deref().unwrap_or("TCP") == "TCP";
        self.port.filter(|_| tcp).map(|port| (self.name.unwrap_or_default().into(), port))
    }
}

built_in!(
    EndpointSlice: EndpointSliceObject,
    "EndpointSlice",
    "EndpointSlices",
    all,
    LABELS = SERVICE_SLICES_SELECTOR
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_conditions_mean_ready_and_null_lists_mean_empty() {
        let slice: EndpointSliceObject = serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "node1"},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}}]
        }))
        .expect("slice");
        let slice = EndpointSlice::from(slice);
        assert_eq!(slice.service, Some(Key::new("default", "web")));
        assert_eq!(
            slice.endpoints,
            [
                Endpoint {
                    node: Some("node1".into()),
                    family: Family::V4,
                    ready: true,
                    serving: true,
                    terminating: false
                },
                Endpoint {
                    node: None,
                    family: Family::V4,
                    ready: false,
                    serving: true,
                    terminating: true
                }
            ]
        );
        let empty = json!({"metadata": {"name": "x"}, "addressType": "IPv6", "endpoints": null});
        assert_eq!(
            EndpointSlice::from(
                serde_json::from_value::<EndpointSliceObject>(empty).expect("slice")
            )
            .endpoints,
            []
        );
    }

    #[test]
    fn equal_endpoints_are_stored_once() {
        let endpoint = |node: &str, ready: bool| json!({"addresses": ["10.0.0.1"], "nodeName": node, "conditions": {"ready": ready}});
        let endpoints = [("a", true), ("a", true), ("b", true), ("a", false), ("b", true)]
            .map(|(node, ready)| endpoint(node, ready));
        let slice =
            json!({"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": endpoints});
        let slice = EndpointSlice::from(
            serde_json::from_value::<EndpointSliceObject>(slice).expect("slice"),
        );
        let stored: Vec<_> = slice
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.node.as_deref(), endpoint.ready))
            .collect();
        assert_eq!(stored, [(Some("a"), true), (Some("b"), true), (Some("a"), false)]);
    }

    #[test]
    fn one_address_per_endpoint_and_all_tcp_ports_are_stored() {
        let slice: EndpointSliceObject = serde_json::from_value(json!({
            "metadata": {"name": "x"}, "addressType": "IPv6",
            "ports": [{"name": "web", "port": 8080}, {"name": "dns", "protocol": "UDP", "port": 53},
                {"name": null, "protocol": "TCP", "port": 9}, {"name": "any", "protocol": "TCP", "port": null}],
            "endpoints": [{"addresses": ["fd00::1"], "nodeName": "a"}, {"addresses": ["fd00::2", "fd00::9"]},
                {"addresses": ["fd00::3"], "nodeName": "a"}, {"addresses": ["no address"], "nodeName": "a"}, {"nodeName": "b"}]
        }))
        .expect("slice");
        let slice = EndpointSlice::from(slice);
        let addresses = slice.endpoint_addresses.iter().map(|target| {
            (target.address.to_string(), slice.endpoints[target.endpoint].node.as_deref())
        });
        let expect = [("fd00::1", Some("a")), ("fd00::2", None), ("fd00::3", Some("a"))];
        assert_eq!(
            addresses.collect::<Vec<_>>(),
            expect.map(|(address, node)| (address.to_owned(), node))
        );
        assert_eq!(slice.ports, [("web".into(), 8080), ("".into(), 9)]);
        assert_eq!(
            slice.endpoints.len(),
            3,
            "node a, node b and the endpoint without a node have one entry each"
        );
    }

    #[test]
    fn node_local_and_link_local_addresses_are_not_probed() {
        let may_be_probed = |text: &str| {
            EndpointAddress { address: text.parse().expect(text), endpoint: 0 }.may_be_probed()
        };
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
        ] {
            assert!(!may_be_probed(refused), "a health check must not connect to {refused}");
        }
        for allowed in ["10.244.1.9", "192.0.2.1", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(may_be_probed(allowed), "a health check may connect to {allowed}");
        }
    }

    #[test]
    fn endpoints_have_the_family_of_their_slice_and_fqdn_has_none() {
        let families = |kind: &str| {
            let slice = json!({"metadata": {"name": "x"}, "addressType": kind, "endpoints": [{"addresses": ["a"]}]});
            let slice = EndpointSlice::from(
                serde_json::from_value::<EndpointSliceObject>(slice).expect("slice"),
            );
            assert_eq!(
                slice.endpoint_addresses,
                [],
                "a text that is no address is ignored for addressType {kind:?}"
            );
            slice.endpoints.iter().map(|endpoint| endpoint.family).collect::<Vec<_>>()
        };
        assert_eq!(families("IPv4"), [Family::V4]);
        assert_eq!(families("IPv6"), [Family::V6]);
        assert_eq!([families("FQDN"), families("IPv9")], [[], []]);
    }

    #[test]
    fn an_endpoint_takes_at_most_24_bytes() {
        assert!(size_of::<Endpoint>() <= 24, "an Endpoint takes {} bytes", size_of::<Endpoint>());
    }
}

//! What we read of a Service.

use std::net::IpAddr;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::Key;
use crate::api;
use crate::range::Family;

/// A Service as decoded off the wire: only the fields that [`Service`] is made of.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::core::v1::Service")]
pub struct ServiceObject {
    /// `metadata`.
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    r#type: Option<String>,
    load_balancer_class: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    external_traffic_policy: Option<String>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: LoadBalancer,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
    hostname: Option<String>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: String,
}

/// `Service.spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any node forwards to any endpoint.
    #[default]
    Cluster,
    /// A node forwards to its own endpoints only, and the client's address is kept.
    Local,
}

/// One address in `Service.status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedAddress {
    /// `ip`.
    pub address: IpAddr,
    /// Whether `ipMode` is set to `VIP` (KEP-1860); false also when it is absent.
    pub vip: bool,
}

/// One of our own conditions (type under `ferrolb.io/`) on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionFact {
    /// `type`.
    pub kind: Box<str>,
    /// `status` is `True`.
    pub is_true: bool,
    /// `reason`.
    pub reason: Box<str>,
    /// `message`.
    pub message: Box<str>,
    /// `lastTransitionTime`, RFC 3339, kept so that an unchanged status keeps its time.
    pub since: Box<str>,
}

/// What we know of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`, for events about it.
    pub uid: Box<str>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.type` is `LoadBalancer` and the Service is not headless.
    pub load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<Box<str>>,
    /// The families it has cluster IPs of, in the order of `spec.ipFamilies`.
    pub families: Vec<Family>,
    /// `spec.externalTrafficPolicy`.
    pub policy: Policy,
    /// The addresses in `status.loadBalancer.ingress`, in order.
    pub assigned: Vec<AssignedAddress>,
    /// Whether `status.loadBalancer.ingress` holds anything but addresses (a host name, a text that is no address).
    pub foreign_ingress: bool,
    /// The pool named by [`api::ANNOTATION_FROM_POOL`].
    pub from_pool: Option<Box<str>>,
    /// Our own conditions.
    pub conditions: Vec<ConditionFact>,
}

impl Service {
    /// Whether the Service is ours: a LoadBalancer of one of our classes, or without a class where we are the default
    /// implementation (`Service.spec.loadBalancerClass`, KEP-1959).
    #[must_use]
    pub fn is_ours(&self, classes: &[String], default_implementation: bool) -> bool {
        let ours = match &self.class {
            None => default_implementation,
            Some(class) => classes.iter().any(|ours| **ours == **class),
        };
        self.load_balancer && ours
    }
}

impl From<ServiceObject> for Service {
    fn from(object: ServiceObject) -> Self {
        let ServiceObject { metadata, spec, status } = object;
        let ingress = status.load_balancer.ingress.unwrap_or_default();
        let assigned: Vec<_> = ingress
            .iter()
            .filter_map(|entry| {
                let address = entry.ip.as_ref()?.parse().ok()?;
                Some(AssignedAddress { address, vip: entry.ip_mode.as_deref() == Some("VIP") })
            })
            .collect();
        let foreign_ingress = assigned.len() != ingress.len() || ingress.iter().any(|entry| entry.hostname.is_some());
        let cluster_ips = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
        let families: Vec<_> = cluster_ips.iter().filter_map(|ip| ip.parse().ok().map(Family::of)).collect();
        let conditions = status.conditions.unwrap_or_default().into_iter();
        let annotations = metadata.annotations.as_ref();
        Self {
            key: Key::of(&metadata),
            uid: metadata.uid.clone().unwrap_or_default().into(),
            deleting: metadata.deletion_timestamp.is_some(),
            // A headless Service has the cluster IP "None", which is no address.
            load_balancer: spec.r#type.as_deref() == Some("LoadBalancer") && !families.is_empty(),
            class: spec.load_balancer_class.map(Into::into),
            families,
            policy: if spec.external_traffic_policy.as_deref() == Some("Local") {
                Policy::Local
            } else {
                Policy::Cluster
            },
            assigned,
            foreign_ingress,
            from_pool: annotations.and_then(|all| all.get(api::ANNOTATION_FROM_POOL)).map(|pool| pool.as_str().into()),
            conditions: conditions.filter(|c| c.r#type.starts_with("ferrolb.io/")).map(Into::into).collect(),
        }
    }
}

impl From<RawCondition> for ConditionFact {
    fn from(raw: RawCondition) -> Self {
        Self {
            kind: raw.r#type.into(),
            is_true: raw.status == "True",
            reason: raw.reason.into(),
            message: raw.message.into(),
            since: raw.last_transition_time.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(json: serde_json::Value) -> Service {
        serde_json::from_value::<ServiceObject>(json).expect("service").into()
    }

    #[test]
    fn a_dual_stack_service_keeps_the_order_of_its_families() {
        let service = service(json!({
            "metadata": {"namespace": "default", "name": "web", "uid": "u1", "annotations": {"ferrolb.io/ip-allocated-from-pool": "lan"}},
            "spec": {"type": "LoadBalancer", "clusterIP": "fd96::1", "clusterIPs": ["fd96::1", "10.96.0.1"], "externalTrafficPolicy": "Local"},
            "status": {"loadBalancer": {"ingress": [{"ip": "fd30::c8", "ipMode": "VIP"}, {"ip": "172.30.0.200"}]},
                "conditions": [{"type": "ferrolb.io/AddressAssigned", "status": "True", "reason": "Assigned", "message": "m", "lastTransitionTime": "t"},
                    {"type": "other.io/X", "status": "True", "reason": "r", "message": "", "lastTransitionTime": "t"}]}
        }));
        assert_eq!(service.families, [Family::V6, Family::V4]);
        assert!(service.load_balancer && !service.foreign_ingress);
        assert_eq!(service.policy, Policy::Local);
        assert_eq!(service.assigned.iter().map(|a| a.vip).collect::<Vec<_>>(), [true, false]);
        assert_eq!(service.from_pool.as_deref(), Some("lan"));
        assert_eq!(service.conditions.len(), 1, "conditions of others are not ours to keep");
    }

    #[test]
    fn what_is_no_load_balancer_is_not_ours() {
        let cases = [
            (json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"]}), true),
            (json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1"}), true),
            (json!({"type": "LoadBalancer", "clusterIPs": ["None"]}), false),
            (json!({"type": "LoadBalancer"}), false),
            (json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1"]}), false),
            (json!({"type": "NodePort", "clusterIPs": ["10.96.0.1"]}), false),
            (json!({"type": "ExternalName", "externalName": "example.com"}), false),
            (
                json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "loadBalancerClass": "ferrolb.io/ferrolb"}),
                true,
            ),
            (json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "loadBalancerClass": "other.io/lb"}), false),
        ];
        for (spec, ours) in cases {
            let service = service(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec}));
            assert_eq!(service.is_ours(&["ferrolb.io/ferrolb".to_owned()], true), ours, "{spec}");
            assert_eq!(
                service.is_ours(&["ferrolb.io/ferrolb".to_owned()], false),
                ours && service.class.is_some(),
                "{spec}"
            );
        }
    }

    #[test]
    fn an_ingress_that_is_not_an_address_is_seen() {
        for ingress in [json!([{"hostname": "lb.example.com"}]), json!([{"ip": "not-an-address"}])] {
            let service = service(json!({"metadata": {}, "status": {"loadBalancer": {"ingress": ingress}}}));
            assert!(service.foreign_ingress);
            assert_eq!(service.assigned, []);
        }
    }
}

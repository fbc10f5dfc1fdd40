//! Objects that other load balancers leave in the API while they announce or assign addresses.
//! `kubectl ferrolb check` and `why` name them. Pure.

use std::collections::BTreeMap;

use ferrolb_controller_core::other_load_balancers::{CILIUM_LB_IPAM, KUBE_VIP, METALLB};
use ferrolb_proto::facts::Key;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DynamicObject;
use serde_json::Value;

use super::finding::Object;
use crate::table::first_names;

/// Beginning of the names of Cilium's Leases: the namespace and the name of a Service follow.
const CILIUM_LEASE: &str = "cilium-l2announce-";
/// Default name of kube-vip's Lease for all Services.
const KUBE_VIP_LEASE: &str = "plndr-svcs-lock";
/// Beginning of the names of kube-vip's Leases for single Services, in their namespaces.
const KUBE_VIP_SERVICE_LEASE: &str = "kubevip-";
/// Seconds after the end of a Lease from which it counts as expired: the user's clock can differ.
const CLOCK_TOLERANCE: i64 = 60;

/// A load balancer that announces Services on layer 2 and states this in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Announcer {
    /// Cilium's L2 announcements, by Leases.
    Cilium,
    /// kube-vip, by Leases.
    KubeVip,
    /// MetalLB, by ServiceL2Statuses.
    MetalLb,
}

/// A statement that a load balancer announces a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The load balancer.
    pub announcer: Announcer,
    /// The object with the statement.
    pub object: Object,
    /// The Service; `None` for all that the load balancer serves.
    pub service: Option<Key>,
    /// The node.
    pub node: String,
}

/// Objects of other load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Announcements of Services.
    pub announcements: Vec<Announcement>,
    /// Names of the CiliumL2AnnouncementPolicies.
    pub cilium_policies: Vec<String>,
    /// Names of the CiliumLoadBalancerIPPools for all Services without a class.
    pub cilium_pools: Vec<String>,
}

impl Announcement {
    /// Returns the announcement that a Lease states, unless the Lease has expired. `services` are
    /// the Services that FerroLB serves, and `unix_time` is the present time in seconds since 1970.
    #[must_use]
    pub fn of_lease(lease: &Lease, services: &[Key], unix_time: i64) -> Option<Self> {
        let key = Key::of(&lease.metadata);
        let (announcer, service) = lease_owner(&key, services)?;
        let spec = lease.spec.as_ref()?;
        let node = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
        let renewed = spec.renew_time.as_ref()?.0.as_second();
        let end = renewed + i64::from(spec.lease_duration_seconds?) + CLOCK_TOLERANCE;
        let object = Object::namespaced("Lease", key.namespace(), key.name());
        (unix_time <= end).then(|| Self { announcer, object, service, node: node.to_owned() })
    }

    /// Returns the announcement that a ServiceL2Status of MetalLB states, if it is about one of
    /// these Services.
    #[must_use]
    pub fn of_metallb(status: &DynamicObject, services: &[Key]) -> Option<Self> {
        let text = |path: &str| status.data.pointer(path).and_then(Value::as_str);
        let service = Key::new(text("/status/serviceNamespace")?, text("/status/serviceName")?);
        let key = Key::of(&status.metadata);
        let object = Object::namespaced("ServiceL2Status", key.namespace(), key.name());
        let node = text("/status/node")?.to_owned();
        let is_served = services.contains(&service);
        let announcer = Announcer::MetalLb;
        is_served.then_some(Self { announcer, object, service: Some(service), node })
    }

    /// Returns whether the announcement can be about this Service.
    #[must_use]
    pub fn is_of(&self, key: &Key) -> bool {
        self.service.as_ref().is_none_or(|service| service == key)
    }
}

/// Returns the load balancer that owns a Lease, and the Service that it names, if FerroLB serves
/// it, too. Both parts of Cilium's name can contain hyphens.
fn lease_owner(lease: &Key, services: &[Key]) -> Option<(Announcer, Option<Key>)> {
    let of = |is_own: &dyn Fn(&Key) -> bool| services.iter().find(|key| is_own(key)).cloned();
    if let Some(name) = lease.name().strip_prefix(CILIUM_LEASE) {
        let is_own = |key: &Key| name == format!("{}-{}", key.namespace(), key.name());
        return Some((Announcer::Cilium, Some(of(&is_own)?)));
    }
    if let Some(name) = lease.name().strip_prefix(KUBE_VIP_SERVICE_LEASE) {
        let is_own = |key: &Key| key.namespace() == lease.namespace() && key.name() == name;
        return Some((Announcer::KubeVip, Some(of(&is_own)?)));
    }
    (lease.name() == KUBE_VIP_LEASE).then_some((Announcer::KubeVip, None))
}

/// Returns the names of the pools from which LB IPAM may assign addresses to every Service.
#[must_use]
pub fn cilium_pools(pools: &[DynamicObject]) -> Vec<String> {
    let serves_all = |pool: &&DynamicObject| {
        let spec = pool.data.get("spec");
        let field = |name: &str| spec.and_then(|spec| spec.get(name));
        let selector = field("serviceSelector").and_then(Value::as_object);
        let is_disabled = field("disabled").and_then(Value::as_bool).unwrap_or_default();
        !is_disabled && selector.is_none_or(serde_json::Map::is_empty)
    };
    pools.iter().filter(serves_all).filter_map(|pool| pool.metadata.name.clone()).collect()
}

impl Traces {
    /// Returns a text for each load balancer with announcements that `counts` selects, and the
    /// objects with its statements.
    pub fn announced(&self, counts: impl Fn(&Announcement) -> bool) -> Vec<(String, Vec<Object>)> {
        let mut by_announcer: BTreeMap<Announcer, Vec<&Announcement>> = BTreeMap::new();
        for it in self.announcements.iter().filter(|it| counts(it)) {
            by_announcer.entry(it.announcer).or_default().push(it);
        }
        let text = |(announcer, all): (Announcer, Vec<&Announcement>)| {
            let place = |it: &&Announcement| match &it.service {
                Some(service) => format!("{service} from {}", it.node),
                None => format!("its Services from {}", it.node),
            };
            let (name, remedy) = self.name_and_remedy(announcer);
            let places: Vec<_> = all.iter().map(place).collect();
            let objects: Vec<_> = all.iter().map(|it| it.object.clone()).collect();
            let first = objects.first().map(ToString::to_string).unwrap_or_default();
            (format!("{name} announces {}, too ({first}): {remedy}", first_names(&places)), objects)
        };
        by_announcer.into_iter().map(text).collect()
    }

    fn name_and_remedy(&self, announcer: Announcer) -> (&'static str, String) {
        match announcer {
            Announcer::Cilium if self.cilium_policies.is_empty() => {
                ("Cilium", "delete the CiliumL2AnnouncementPolicy that selects it".to_owned())
            }
            Announcer::Cilium => (
                "Cilium",
                format!(
                    "exclude it by spec.serviceSelector of CiliumL2AnnouncementPolicy {}, or \
                     delete that policy",
                    first_names(&self.cilium_policies)
                ),
            ),
            Announcer::KubeVip => (KUBE_VIP.name, KUBE_VIP.remedy.to_owned()),
            Announcer::MetalLb => (
                METALLB.name,
                "remove the address from MetalLB's pools, or uninstall it".to_owned(),
            ),
        }
    }

    /// Returns a text about the pools of Cilium for all Services without a class; `None` without
    /// such pools.
    #[must_use]
    pub fn assigned_by_cilium(&self) -> Option<(String, Vec<Object>)> {
        let object = |name: &String| Object::cluster("CiliumLoadBalancerIPPool", name);
        let text = format!(
            "{} assigns addresses of CiliumLoadBalancerIPPool {} to Services without a class, and \
             so does FerroLB: {}",
            CILIUM_LB_IPAM.name,
            first_names(&self.cilium_pools),
            CILIUM_LB_IPAM.remedy
        );
        (!self.cilium_pools.is_empty())
            .then(|| (text, self.cilium_pools.iter().map(object).collect()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn served() -> Vec<Key> {
        vec![Key::new("shop", "web-1"), Key::new("default", "web")]
    }

    fn lease(namespace: &str, name: &str, holder: &str) -> Lease {
        let lease = json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15,
                "renewTime": "2026-01-01T00:00:00.000000Z"},
        });
        serde_json::from_value(lease).unwrap()
    }

    #[test]
    fn a_lease_names_the_service_and_the_node() {
        let renewed = 1_767_225_600_i64;
        let found = |namespace, name, holder, seconds: i64| {
            let lease = lease(namespace, name, holder);
            let found = Announcement::of_lease(&lease, &served(), renewed + seconds)?;
            let service = found.service.map(|key| key.to_string()).unwrap_or_default();
            Some((found.announcer, service, found.node))
        };
        let on = |announcer, service: &str| Some((announcer, service.to_owned(), "n1".to_owned()));
        let cilium = "cilium-l2announce-shop-web-1";
        assert_eq!(found("kube-system", cilium, "n1", 5), on(Announcer::Cilium, "shop/web-1"));
        assert_eq!(found("kube-system", cilium, "n1", 76), None, "expired");
        assert_eq!(found("kube-system", cilium, "", 5), None, "released");
        assert_eq!(found("kube-system", "cilium-l2announce-shop-other", "n1", 5), None);
        assert_eq!(found("default", "kubevip-web", "n1", 5), on(Announcer::KubeVip, "default/web"));
        assert_eq!(found("shop", "kubevip-web", "n1", 5), None);
        assert_eq!(found("kube-system", "plndr-svcs-lock", "n1", 5), on(Announcer::KubeVip, ""));
        assert_eq!(found("kube-system", "cilium-operator-resource-lock", "n1", 5), None);
    }

    fn object(object: Value) -> DynamicObject {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_status_of_metallb_names_the_service_and_the_node() {
        let status = |service: &str| {
            object(json!({
                "apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status",
                "metadata": {"namespace": "metallb-system", "name": "l2-x7k"},
                "status": {"node": "n1", "serviceNamespace": "default", "serviceName": service},
            }))
        };
        let found = Announcement::of_metallb(&status("web"), &served()).unwrap();
        let expected = ("ServiceL2Status metallb-system/l2-x7k".to_owned(), "n1");
        assert_eq!((found.object.to_string(), &*found.node), expected);
        assert_eq!(found.service, Some(Key::new("default", "web")));
        assert_eq!(Announcement::of_metallb(&status("other"), &served()), None);
        let empty = object(json!({"metadata": {"name": "l2-x7k"}}));
        assert_eq!(Announcement::of_metallb(&empty, &served()), None);
    }

    #[test]
    fn pools_of_cilium_count_if_they_serve_every_service_without_a_class() {
        let pool = |name: &str, spec| object(json!({"metadata": {"name": name}, "spec": spec}));
        let pools = [
            pool("all", json!({"blocks": []})),
            pool("empty", json!({"serviceSelector": {}})),
            pool("selected", json!({"serviceSelector": {"matchLabels": {"a": "b"}}})),
            pool("disabled", json!({"disabled": true})),
        ];
        assert_eq!(cilium_pools(&pools), ["all", "empty"]);
    }
}

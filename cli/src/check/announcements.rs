//! Statements of other load balancers that they announce a Service on layer 2. Pure.

use ferrolb_proto::facts::Key;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DynamicObject;
use serde_json::Value;

use super::finding::Object;

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

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn served() -> Vec<Key> {
        vec![Key::new("shop", "web-1"), Key::new("default", "web")]
    }

    /// Time at which the Leases were renewed.
    pub(crate) const RENEWED: i64 = 1_767_225_600;

    pub(crate) fn lease(namespace: &str, name: &str, holder: &str) -> Lease {
        let lease = json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15,
                "renewTime": "2026-01-01T00:00:00.000000Z"},
        });
        serde_json::from_value(lease).unwrap()
    }

    pub(crate) fn object(object: Value) -> DynamicObject {
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_lease_names_the_service_and_the_node() {
        let found = |namespace, name, holder, seconds: i64| {
            let lease = lease(namespace, name, holder);
            let found = Announcement::of_lease(&lease, &served(), RENEWED + seconds)?;
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
}

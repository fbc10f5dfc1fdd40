//! Objects of Cilium that announce or assign addresses of Services: the Services of FerroLB that
//! each selects, by the rules of Cilium 1.20.2. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::facts::{Key, Service, selector_matches};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::DynamicObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Labels that a Service has for Cilium's selectors, in addition to its own: its name and its
/// namespace.
const META_LABELS: [&str; 2] = ["io.kubernetes.service.name", "io.kubernetes.service.namespace"];
/// Value of `advertisementType` of a CiliumBGPAdvertisement.
const SERVICE: &str = "Service";
/// Values of `service.addresses` of a CiliumBGPAdvertisement.
const LOAD_BALANCER_IP: &str = "LoadBalancerIP";
const EXTERNAL_IP: &str = "ExternalIP";

/// An object of Cilium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CiliumObject {
    /// Its name.
    pub name: String,
    /// The Services of FerroLB whose addresses it announces or assigns.
    pub services: BTreeSet<Key>,
}

/// The fields of a CiliumL2AnnouncementPolicy.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Policy {
    service_selector: Option<LabelSelector>,
    #[serde(rename = "loadBalancerIPs")]
    load_balancer_ips: bool,
    #[serde(rename = "externalIPs")]
    external_ips: bool,
}

/// The fields of a CiliumBGPAdvertisement.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Advertisements {
    advertisements: Vec<Advertisement>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Advertisement {
    advertisement_type: String,
    service: Option<ServiceOptions>,
    selector: Option<LabelSelector>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceOptions {
    addresses: Vec<String>,
}

/// The fields of a CiliumLoadBalancerIPPool.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AddressPool {
    service_selector: Option<LabelSelector>,
    disabled: bool,
}

impl CiliumObject {
    /// Returns the object with those of the Services that `counts` selects. Cilium ignores Services
    /// with a class other than its own.
    fn new(name: String, services: &[Service], counts: impl Fn(&Service) -> bool) -> Self {
        let services = services.iter().filter(|it| it.class.is_none() && counts(it));
        Self { name, services: services.map(|it| it.key.clone()).collect() }
    }
}

impl Advertisement {
    fn advertises(&self, service: &Service) -> bool {
        let addresses = self.service.iter().flat_map(|options| &options.addresses);
        let is_address = |kind: &String| match kind.as_str() {
            LOAD_BALANCER_IP => true,
            EXTERNAL_IP => has_external_ip(service),
            _ => false,
        };
        self.advertisement_type == SERVICE
            && addresses.into_iter().any(is_address)
            && self.selector.as_ref().is_some_and(|it| selects(it, service))
    }
}

/// Returns all CiliumL2AnnouncementPolicies, also those that announce none of these Services.
#[must_use]
pub fn policies(objects: &[DynamicObject], services: &[Service]) -> Vec<CiliumObject> {
    let read = |(name, policy): (String, Policy)| {
        CiliumObject::new(name, services, |it| {
            let announces = policy.load_balancer_ips || policy.external_ips && has_external_ip(it);
            announces && is_selected(policy.service_selector.as_ref(), it)
        })
    };
    objects.iter().filter_map(name_and_spec).map(read).collect()
}

/// Returns the CiliumBGPAdvertisements that advertise one of these Services. An entry without a
/// selector advertises none.
#[must_use]
pub fn advertisements(objects: &[DynamicObject], services: &[Service]) -> Vec<CiliumObject> {
    let read = |(name, spec): (String, Advertisements)| {
        let advertises =
            |it: &Service| spec.advertisements.iter().any(|entry| entry.advertises(it));
        CiliumObject::new(name, services, advertises)
    };
    let all = objects.iter().filter_map(name_and_spec).map(read);
    all.filter(|it| !it.services.is_empty()).collect()
}

/// Returns the CiliumLoadBalancerIPPools from which LB IPAM may assign addresses to every Service
/// without a class, or to one of these Services.
#[must_use]
pub fn pools(objects: &[DynamicObject], services: &[Service]) -> Vec<CiliumObject> {
    let read = |(name, pool): (String, AddressPool)| {
        let selector = pool.service_selector.as_ref();
        let found = CiliumObject::new(name, services, |it| is_selected(selector, it));
        let is_for_all = selector.is_none_or(|it| *it == LabelSelector::default());
        let counts = !pool.disabled && (is_for_all || !found.services.is_empty());
        counts.then_some(found)
    };
    objects.iter().filter_map(name_and_spec).filter_map(read).collect()
}

/// Returns name and fields of an object. One whose fields have another form has no effect.
fn name_and_spec<T: DeserializeOwned>(object: &DynamicObject) -> Option<(String, T)> {
    let spec = T::deserialize(object.data.get("spec")?).ok()?;
    Some((object.metadata.name.clone()?, spec))
}

/// Returns whether a Service is selected. No selector selects every Service.
fn is_selected(selector: Option<&LabelSelector>, service: &Service) -> bool {
    selector.is_none_or(|it| selects(it, service))
}

fn selects(selector: &LabelSelector, service: &Service) -> bool {
    let own = service.demand.labels.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    let mut labels: BTreeMap<_, _> = own.collect();
    let meta = [service.key.name(), service.key.namespace()];
    labels.extend(META_LABELS.map(str::to_owned).into_iter().zip(meta.map(str::to_owned)));
    selector_matches(selector, &labels)
}

/// Returns whether an address of the Service is also one of its external IPs.
fn has_external_ip(service: &Service) -> bool {
    service.assigned.iter().any(|it| service.demand.external_ips.contains(&it.address))
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::{AllocationDemand, AssignedAddress};
    use serde_json::{Value, json};

    use super::*;

    /// Returns a Service with the address 192.0.2.1 and the label `app`.
    fn service(name: &str, app: &str) -> Service {
        let address = "192.0.2.1".parse().unwrap();
        Service {
            key: Key::new("shop", name),
            assigned: vec![AssignedAddress { address, mode: None }],
            demand: AllocationDemand {
                labels: [("app".into(), app.into())].into(),
                ..AllocationDemand::default()
            },
            ..Service::default()
        }
    }

    /// Returns Services that differ in label, class and external IP.
    fn services() -> [Service; 4] {
        let with_external = |name, ip: &str| {
            let mut service = service(name, "external");
            service.demand.external_ips = [ip.parse().unwrap()].into();
            service
        };
        let classed = Service { class: Some("a/b".into()), ..service("classed", "web") };
        let [same, other] = ["192.0.2.1", "192.0.2.9"];
        [service("web", "web"), classed, with_external("same", same), with_external("other", other)]
    }

    type Read = fn(&[DynamicObject], &[Service]) -> Vec<CiliumObject>;

    /// Checks the names of the Services of an object with these fields; `None` if it is not listed.
    fn check(read: Read, spec: Value, expect: Option<&[&str]>) {
        let object = json!({"metadata": {"name": "one"}, "spec": spec});
        let objects = [serde_json::from_value(object).unwrap()];
        let found = read(&objects, &services());
        let names = |it: &CiliumObject| {
            it.services.iter().map(|key| key.name().to_owned()).collect::<Vec<_>>()
        };
        let found = found.first().map(names);
        let expect = expect.map(|names| names.iter().map(|&it| it.to_owned()).collect());
        assert_eq!(found, expect, "{spec}");
    }

    fn in_app(operator: &str, value: &str) -> Value {
        json!({"matchExpressions": [{"key": "app", "operator": operator, "values": [value]}]})
    }

    #[test]
    fn a_policy_announces_what_its_selector_and_its_kinds_of_addresses_select() {
        let policy = |kind: &str, selector: Value| json!({kind: true, "serviceSelector": selector});
        let [ips, external] = ["loadBalancerIPs", "externalIPs"];
        let all: &[&str] = &["other", "same", "web"];
        check(policies, json!({ips: true}), Some(all));
        check(policies, policy(ips, json!({})), Some(all));
        check(policies, policy(ips, json!({"matchLabels": {"app": "web"}})), Some(&["web"]));
        check(policies, policy(ips, json!({"matchLabels": {"app": "x"}})), Some(&[]));
        check(policies, policy(ips, in_app("NotIn", "web")), Some(&["other", "same"]));
        check(policies, policy(ips, in_app("Near", "web")), Some(&[]));
        let by_name = json!({"matchLabels": {META_LABELS[0]: "same", META_LABELS[1]: "shop"}});
        check(policies, policy(ips, by_name), Some(&["same"]));
        let elsewhere = json!({"matchLabels": {META_LABELS[1]: "default"}});
        check(policies, policy(ips, elsewhere), Some(&[]));
        check(policies, json!({external: true}), Some(&["same"]));
        check(policies, json!({ips: false}), Some(&[]));
        check(policies, json!({ips: "text"}), None);
    }

    #[test]
    fn an_advertisement_needs_a_selector_and_a_kind_of_address() {
        let entry = |kind: &str, addresses: &[&str], selector: Value| {
            json!({"advertisements": [{"advertisementType": "PodCIDR"}, {
                "advertisementType": kind, "service": {"addresses": addresses}, "selector": selector,
            }]})
        };
        let all: &[&str] = &["other", "same", "web"];
        let check = |spec, expect| check(advertisements, spec, expect);
        check(entry(SERVICE, &[LOAD_BALANCER_IP], json!({})), Some(all));
        check(entry(SERVICE, &[LOAD_BALANCER_IP], in_app("In", "web")), Some(&["web"]));
        check(entry(SERVICE, &[LOAD_BALANCER_IP], in_app("In", "x")), None);
        check(entry(SERVICE, &[LOAD_BALANCER_IP], Value::Null), None);
        check(entry(SERVICE, &["ClusterIP", EXTERNAL_IP], json!({})), Some(&["same"]));
        check(entry(SERVICE, &["ClusterIP"], json!({})), None);
        check(entry("Interface", &[LOAD_BALANCER_IP], json!({})), None);
    }

    #[test]
    fn a_pool_counts_if_it_serves_every_service_or_one_of_ferrolb() {
        let all: &[&str] = &["other", "same", "web"];
        let check = |spec, expect| check(pools, spec, expect);
        check(json!({"blocks": []}), Some(all));
        check(json!({"serviceSelector": {}}), Some(all));
        check(json!({"serviceSelector": in_app("In", "web")}), Some(&["web"]));
        check(json!({"serviceSelector": in_app("In", "x")}), None);
        check(json!({"disabled": true}), None);
        let object = json!({"metadata": {"name": "one"}, "spec": {}});
        let objects = [serde_json::from_value(object).unwrap()];
        assert_eq!(pools(&objects, &[]).len(), 1, "also before the first Service");
    }
}

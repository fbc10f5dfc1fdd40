//! Pools of kube-vip's cloud provider: the ConfigMap `kubevip`, which becomes IPAddressPools. Pure.
//!
//! The keys are `cidr-SCOPE` and `range-SCOPE` with a namespace or `global` as the scope. The cloud
//! provider takes, for a Service, the first of: `cidr-NAMESPACE`, `cidr-global`,
//! `range-NAMESPACE`, `range-global`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::api::CustomResourceKind;
use ferrolb_proto::range::{AddressRange, AddressSet};
use serde_json::{Map, Value, json};

use super::Problem;
use crate::objects::{self, namespace, object};

/// Scope of the pool for all namespaces.
const GLOBAL: &str = "global";
/// Name of the pool for addresses that are in no other pool.
const FIXED: &str = "kube-vip-fixed";
/// Value that requests addresses by DHCP.
const DHCP: &str = "0.0.0.0/32";

/// The pools, by their scope.
#[derive(Default)]
pub struct Pools {
    scopes: BTreeMap<String, AddressSet>,
    /// Interface of each scope that has one.
    interfaces: BTreeMap<String, String>,
    /// Addresses in use that are in no pool of their Services.
    fixed: AddressSet,
    /// Settings without an equivalent.
    pub problems: Vec<Problem>,
}

impl Pools {
    /// Reads the ConfigMap. `services` are the Services that kube-vip serves; each of their
    /// addresses is in a pool afterwards, or in one of `other_pools` already.
    #[must_use]
    pub fn read(config: Option<&Value>, services: &[&Value], other_pools: &AddressSet) -> Self {
        let mut pools = Self::default();
        let empty = Map::new();
        let data = config.and_then(|it| it.get("data")?.as_object()).unwrap_or(&empty);
        for (key, value) in data {
            pools.add(data, key, value.as_str().unwrap_or_default());
        }
        pools.separate();
        for service in services {
            let addresses = objects::addresses(service).into_iter();
            for address in addresses.filter(|address| !other_pools.contains(*address)) {
                pools.include(namespace(service), address);
            }
        }
        pools
    }

    /// Adds an entry of the ConfigMap.
    fn add(&mut self, data: &Map<String, Value>, key: &str, value: &str) {
        let is_unused = |scope: &str| {
            data.contains_key(&format!("cidr-{scope}")) || data.contains_key("cidr-global")
        };
        match key.split_once('-') {
            Some(("cidr", scope)) => self.add_ranges(key, scope, value, skips_ends(data)),
            Some(("range", scope)) if is_unused(scope) => {
                self.note(key, "kube-vip does not use it, because there is a CIDR: not copied");
            }
            Some(("range", scope)) => self.add_ranges(key, scope, value, false),
            Some(("interface", scope)) => {
                self.interfaces.insert(scope.to_owned(), value.to_owned());
            }
            Some(("allow", _)) => {
                self.note(key, "FerroLB shares an address only by the annotation allow-shared-ip");
            }
            Some(("skip", _)) => {}
            Some(_) | None => {
                self.note(key, "no equivalent: FerroLB assigns the lowest free address")
            }
        }
    }

    fn add_ranges(&mut self, key: &str, scope: &str, value: &str, skips_ends: bool) {
        for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            if text == DHCP {
                self.problem(
                    key,
                    "addresses by DHCP: FerroLB has none, so write a range of addresses",
                );
                continue;
            }
            match text.parse::<AddressRange>() {
                Ok(range) => {
                    let set = self.scopes.entry(scope.to_owned()).or_default();
                    set.insert(range);
                    if skips_ends {
                        set.remove(AddressRange::single(range.first()));
                        set.remove(AddressRange::single(range.last()));
                    }
                }
                Err(error) => self.problem(key, &error.to_string()),
            }
        }
    }

    /// Removes the addresses of the namespaces' pools from the global pool, because FerroLB's pools
    /// must not overlap.
    fn separate(&mut self) {
        let Some(mut global) = self.scopes.remove(GLOBAL) else { return };
        for range in self.scopes.values().flat_map(AddressSet::ranges) {
            global.remove(range);
        }
        self.scopes.insert(GLOBAL.to_owned(), global);
    }

    /// Adds an address in use to the fixed pool, unless a Service of the namespace may have it.
    fn include(&mut self, namespace: &str, address: IpAddr) {
        let has = |scope: &str| self.scopes.get(scope).is_some_and(|set| set.contains(address));
        if !has(namespace) && !has(GLOBAL) {
            let range = AddressRange::single(address);
            self.scopes.values_mut().for_each(|set| set.remove(range));
            self.fixed.insert(range);
        }
    }

    /// Returns the IPAddressPools and, with `is_layer2`, their L2Advertisements.
    #[must_use]
    pub fn manifests(&self, ferrolb: &str, is_layer2: bool) -> Vec<Value> {
        let mut manifests = Vec::new();
        let mut by_interface: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
        for (scope, set) in &self.scopes {
            let name = format!("kube-vip-{scope}");
            let mut spec = json!({"addresses": addresses(set)});
            if scope != GLOBAL {
                spec["serviceAllocation"] = json!({"namespaces": [scope]});
            }
            if set.ranges().next().is_some() {
                manifests.push(object(CustomResourceKind::IPAddressPool, &name, ferrolb, spec));
                let interface = self.interfaces.get(scope).or_else(|| self.interfaces.get(GLOBAL));
                by_interface.entry(interface.map(String::as_str)).or_default().push(name);
            }
        }
        if self.fixed.ranges().next().is_some() {
            let spec = json!({"addresses": addresses(&self.fixed), "autoAssign": false});
            manifests.push(object(CustomResourceKind::IPAddressPool, FIXED, ferrolb, spec));
            by_interface.entry(None).or_default().push(FIXED.to_owned());
        }
        for (interface, pools) in by_interface.into_iter().filter(|_| is_layer2) {
            let name =
                interface.map_or_else(|| "kube-vip".to_owned(), |it| format!("kube-vip-{it}"));
            let mut spec = json!({"ipAddressPools": pools});
            if let Some(interface) = interface {
                spec["interfaces"] = json!([interface]);
            }
            manifests.push(object(CustomResourceKind::L2Advertisement, &name, ferrolb, spec));
        }
        manifests
    }

    fn problem(&mut self, key: &str, text: &str) {
        self.problems.push(Problem::of(format!("ConfigMap kubevip, {key}"), text));
    }

    fn note(&mut self, key: &str, text: &str) {
        self.problems.push(Problem::note(format!("ConfigMap kubevip, {key}"), text));
    }
}

/// Returns whether the cloud provider skips the first and the last address of each CIDR.
fn skips_ends(data: &Map<String, Value>) -> bool {
    data.get("skip-end-ips-in-cidr").is_some_and(|value| value == "true")
}

fn addresses(set: &AddressSet) -> BTreeSet<String> {
    set.ranges().map(|range| range.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(data: Value) -> (Vec<Value>, Vec<Problem>) {
        let pools = Pools::read(Some(&json!({"data": data})), &[], &AddressSet::default());
        (pools.manifests("ferrolb-system", false), pools.problems)
    }

    #[test]
    fn the_ends_of_cidrs_are_skipped_on_request() {
        let data = json!({"cidr-a": "10.0.0.0/30,10.0.1.0/31", "skip-end-ips-in-cidr": "true"});
        let (manifests, problems) = pools(data);
        assert_eq!(manifests[0]["spec"]["addresses"], json!(["10.0.0.1-10.0.0.2"]));
        assert_eq!(problems, []);
    }

    #[test]
    fn overlapping_ranges_of_one_pool_are_merged() {
        let (manifests, _) = pools(json!({"range-global": "10.0.0.1-10.0.0.5, 10.0.0.4-10.0.0.9"}));
        assert_eq!(manifests[0]["spec"]["addresses"], json!(["10.0.0.1-10.0.0.9"]));
    }

    #[test]
    fn dhcp_and_invalid_ranges_are_problems() {
        let (manifests, problems) = pools(json!({"cidr-global": DHCP, "range-a": "10.0.0.9-x"}));
        assert_eq!(manifests, [] as [Value; 0]);
        assert!(problems.iter().any(|problem| problem.text.contains("DHCP")), "{problems:?}");
        let (_, problems) = pools(json!({"range-a": "10.0.0.9-x"}));
        assert!(problems[0].text.contains("is not an address"), "{problems:?}");
    }
}

//! The effect of changes: the differences between the addresses, owners and routes before and after
//! them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_controller_core::state::{Outlook, OwnerOutlook, ServiceOutlook};
use ferrolb_proto::facts::Key;
use serde::Serialize;

/// The effect of changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// The Services whose addresses change.
    pub services: Vec<ServiceEffect>,
    /// Number of Services that keep their addresses.
    pub kept: usize,
    /// The addresses that other nodes announce afterwards.
    pub owners: Vec<OwnerEffect>,
    /// The prefixes that other nodes advertise afterwards, by BGPPeer.
    pub routes: Vec<RouteEffect>,
}

/// The effect on the addresses of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceEffect {
    /// Namespace and name.
    pub service: String,
    /// The kind of the effect.
    pub effect: AddressEffect,
    /// Addresses before the changes.
    pub before: Vec<IpAddr>,
    /// Addresses after the changes.
    pub after: Vec<IpAddr>,
    /// Reason of the condition `AddressAssigned` afterwards; empty if FerroLB does not serve the
    /// Service any more.
    pub reason: &'static str,
    /// True if the effect occurs only after the grace of a missing pool (`--pool-grace`).
    pub after_pool_grace: bool,
}

/// The kind of an effect on the addresses of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AddressEffect {
    /// FerroLB serves the Service, which has no address afterwards.
    Lost,
    /// FerroLB serves the Service, which has other or fewer addresses afterwards.
    Moved,
    /// The Service keeps its addresses, and has more afterwards.
    Added,
    /// FerroLB begins to serve the Service.
    New,
    /// The Service is deleted, or FerroLB does not serve it any more.
    Released,
}

/// The effect on the nodes that announce an address on layer 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerEffect {
    /// The address.
    pub address: IpAddr,
    /// Services that have the address before or after the changes.
    pub services: Vec<String>,
    /// Nodes that announce the address before the changes.
    pub before: Vec<String>,
    /// Nodes that announce the address after the changes.
    pub after: Vec<String>,
}

/// The effect on the nodes that advertise a prefix to the router of a BGPPeer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteEffect {
    /// Name of the BGPPeer.
    pub peer: String,
    /// The prefix.
    pub prefix: String,
    /// Nodes that begin to advertise the prefix.
    pub advertised: Vec<String>,
    /// Nodes that withdraw the prefix.
    pub withdrawn: Vec<String>,
    /// Nodes that advertise the prefix as a de-preferred path only afterwards.
    pub de_preferred: Vec<String>,
    /// Nodes that advertise the prefix as a de-preferred path only before.
    pub preferred: Vec<String>,
}

impl Effect {
    /// Returns the differences between two outlooks. `at_once` is the outlook immediately after the
    /// changes, and `after` the one after the grace of missing pools.
    #[must_use]
    pub fn between(before: &Outlook, at_once: &Outlook, after: &Outlook) -> Self {
        let mut effect = Self::default();
        let keys: BTreeSet<&Key> = before.services.keys().chain(after.services.keys()).collect();
        for key in keys {
            let of = |outlook: &'_ Outlook| outlook.services.get(key).cloned();
            match service_effect(key, of(before).as_ref(), of(after).as_ref()) {
                Some(mut changed) => {
                    let earlier = service_effect(key, of(before).as_ref(), of(at_once).as_ref());
                    let same = |it: ServiceEffect| {
                        (it.effect, it.after) == (changed.effect, changed.after.clone())
                    };
                    changed.after_pool_grace = !earlier.is_some_and(same);
                    effect.services.push(changed);
                }
                None => {
                    let has_addresses = |it: ServiceOutlook| !it.addresses.is_empty();
                    effect.kept += usize::from(of(after).is_some_and(has_addresses));
                }
            }
        }
        effect.owners = owner_effects(before, after);
        effect.routes = route_effects(before, after);
        effect
    }

    /// Returns whether a Service that FerroLB serves loses an address.
    #[must_use]
    pub fn loses_addresses(&self) -> bool {
        let loses =
            |it: &ServiceEffect| matches!(it.effect, AddressEffect::Lost | AddressEffect::Moved);
        self.services.iter().any(loses)
    }
}

/// Returns the effect on the addresses of a Service; `None` if they do not change.
fn service_effect(
    key: &Key,
    before: Option<&ServiceOutlook>,
    after: Option<&ServiceOutlook>,
) -> Option<ServiceEffect> {
    let addresses = |it: Option<&ServiceOutlook>| it.map(|it| it.addresses.clone());
    let (had, has) = (addresses(before).unwrap_or_default(), addresses(after).unwrap_or_default());
    let keeps_all = had.iter().all(|address| has.contains(address));
    let effect = match (before, after) {
        (Some(_), None) => AddressEffect::Released,
        (None, _) => AddressEffect::New,
        _ if keeps_all && has.len() == had.len() => return None,
        _ if keeps_all => AddressEffect::Added,
        _ if has.is_empty() => AddressEffect::Lost,
        _ => AddressEffect::Moved,
    };
    Some(ServiceEffect {
        service: key.to_string(),
        effect,
        before: had,
        after: has,
        reason: after.map_or("", |it| it.reason),
        after_pool_grace: false,
    })
}

/// Returns the Services that have each address.
pub(crate) fn services_by_address<'a>(
    services: impl Iterator<Item = (&'a Key, &'a ServiceOutlook)>,
) -> BTreeMap<IpAddr, BTreeSet<&'a Key>> {
    let mut by_address: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (key, service) in services {
        for address in &service.addresses {
            by_address.entry(*address).or_default().insert(key);
        }
    }
    by_address
}

fn owner_effects(before: &Outlook, after: &Outlook) -> Vec<OwnerEffect> {
    let none = OwnerOutlook::default();
    let addresses: BTreeSet<&IpAddr> = before.owners.keys().chain(after.owners.keys()).collect();
    let changed = addresses.into_iter().filter_map(|address| {
        let of = |outlook: &'_ Outlook| outlook.owners.get(address).unwrap_or(&none).clone();
        let (before, after) = (of(before), of(after));
        // An owner that changes in any case is no effect of the changes.
        let changes = before.next != after.next && before.present != after.next;
        changes.then_some((*address, before.present, after.next))
    });
    let changed: Vec<_> = changed.collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let services = services_by_address(before.services.iter().chain(&after.services));
    let effect = |(address, before, after)| OwnerEffect {
        address,
        services: services.get(&address).into_iter().flatten().map(ToString::to_string).collect(),
        before,
        after,
    };
    changed.into_iter().map(effect).collect()
}

fn route_effects(before: &Outlook, after: &Outlook) -> Vec<RouteEffect> {
    let none = BTreeMap::new();
    let routes: BTreeSet<_> = before.routes.keys().chain(after.routes.keys()).collect();
    let effect = |route: &(Box<str>, _)| {
        let of = |outlook: &'_ Outlook| outlook.routes.get(route).unwrap_or(&none).clone();
        let (before, after) = (of(before), of(after));
        let names = |is_listed: &dyn Fn(&str) -> bool| -> Vec<String> {
            let nodes: BTreeSet<_> = before.keys().chain(after.keys()).collect();
            nodes.into_iter().filter(|it| is_listed(it)).map(ToString::to_string).collect()
        };
        let becomes = |from: bool, to: bool| {
            names(&|node| before.get(node) == Some(&from) && after.get(node) == Some(&to))
        };
        RouteEffect {
            peer: route.0.to_string(),
            prefix: route.1.to_string(),
            advertised: names(&|node| !before.contains_key(node)),
            withdrawn: names(&|node| !after.contains_key(node)),
            de_preferred: becomes(false, true),
            preferred: becomes(true, false),
        }
    };
    let is_unchanged = |it: &RouteEffect| {
        [&it.advertised, &it.withdrawn, &it.de_preferred, &it.preferred]
            .iter()
            .all(|nodes| nodes.is_empty())
    };
    routes.into_iter().map(effect).filter(|it| !is_unchanged(it)).collect()
}

#[cfg(test)]
mod tests;

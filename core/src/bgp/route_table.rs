//! The routes that a node advertises, updated address by address. Pure; the memo of the speaker's
//! plan owns the one [`RouteTable`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::range::{AddressRange, Family};

use super::route_class::de_preferred_med;
use super::routes::{RouteInput, class, served_address};
use super::{Prefix, RouteClass};
use crate::announce::{ClusterView, ServiceView};
use crate::shared_map::SharedMap;

/// The prefixes that a node advertises, each with the routers that receive it and their attributes.
/// Prefixes without a router are not in the map.
pub type Routes = SharedMap<Prefix, Arc<RouteClass>>;

/// The classes of the routes, with the number of prefixes of each.
pub type ClassCounts = BTreeMap<(Family, Arc<RouteClass>), usize>;

/// The routes of a node, and the inputs from which they follow.
///
/// A caller sets each address that may have changed, and then calls [`RouteTable::update`]. If the
/// sessions, the advertisements, the pools or the nodes change, the caller first calls
/// [`RouteTable::clear`], and sets all addresses.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// The addresses that the node may advertise.
    served: BTreeMap<IpAddr, AddressRoutes>,
    /// The prefixes that must be computed again.
    stale: BTreeSet<Prefix>,
    /// Each class that was computed since the latest [`RouteTable::clear`]. 10,000 prefixes have
    /// only a handful of classes.
    classes: BTreeMap<ClassKey, Arc<RouteClass>>,
    /// True if every route of the node was de-preferred at the latest update.
    is_de_preferred: bool,
    routes: Routes,
    counts: ClassCounts,
}

/// An address that the node may advertise.
#[derive(Debug, PartialEq, Eq)]
struct AddressRoutes {
    /// True if the endpoints on the node fail their health check.
    failing: bool,
    /// The prefixes that announce the address, each with the index of its BGPAdvertisement.
    prefixes: Box<[(Prefix, usize)]>,
}

/// The key of a [`RouteClass`]: prefixes with the same family and the same properties share one
/// class. The fields are the family, [`de_preferred_med`] if all addresses in the prefix that the
/// node can serve are de-preferred, and the indexes of the BGPAdvertisements that announce any of
/// them.
type ClassKey = (Family, Option<u32>, BTreeSet<usize>);

impl RouteTable {
    /// Drops everything that follows from sessions, advertisements, pools and nodes.
    pub fn clear(&mut self) {
        self.stale.extend(self.routes.keys());
        self.served.clear();
        self.classes.clear();
    }

    /// Sets one address. `services` are the Services that have the address; the address may have
    /// none any more.
    pub fn set_address<'v>(
        &mut self,
        view: &ClusterView<'_>,
        input: &RouteInput<'_, '_>,
        address: IpAddr,
        services: impl IntoIterator<Item = &'v ServiceView<'v>>,
    ) {
        let now = served_address(view, input, address, services).ok().map(|served| {
            let prefix = |index| {
                let ad = input.advertisements.get(index).of;
                (Prefix::of(address, ad.aggregation_length(Family::of(address))), index)
            };
            let prefixes = served.advertisements.into_iter().map(prefix).collect();
            AddressRoutes { failing: served.serving.failing, prefixes }
        });
        if self.served.get(&address) == now.as_ref() {
            return;
        }
        let before = self.served.remove(&address);
        let prefixes = before.iter().chain(&now).flat_map(|served| &served.prefixes);
        self.stale.extend(prefixes.map(|(prefix, _)| *prefix));
        self.served.extend(now.map(|now| (address, now)));
    }

    /// Computes the routes that have changed.
    pub fn update(&mut self, input: &RouteInput<'_, '_>) {
        let is_de_preferred = input.is_de_preferred();
        if is_de_preferred != self.is_de_preferred {
            let prefixes = self.served.values().flat_map(|served| &served.prefixes);
            self.stale.extend(prefixes.map(|(prefix, _)| *prefix));
            self.is_de_preferred = is_de_preferred;
        }
        for prefix in std::mem::take(&mut self.stale) {
            self.update_prefix(input, prefix);
        }
    }

    fn update_prefix(&mut self, input: &RouteInput<'_, '_>, prefix: Prefix) {
        let class = self.class_key(prefix).map(|key| self.class(input, key));
        let now = class.filter(|class| !class.peers_by_attributes.is_empty());
        let before = self.routes.get(&prefix);
        if before == now.as_ref() {
            return;
        }
        if let Some(before) = before {
            let key = (prefix.family(), Arc::clone(before));
            let count = self.counts.entry(key.clone()).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        match now {
            Some(now) => {
                *self.counts.entry((prefix.family(), Arc::clone(&now))).or_default() += 1;
                self.routes.insert(prefix, now);
            }
            None => drop(self.routes.remove(&prefix)),
        }
    }

    /// Returns the properties of a prefix, which follow from the addresses in it that the node can
    /// serve; `None` if there is no such address.
    fn class_key(&self, prefix: Prefix) -> Option<ClassKey> {
        let range = AddressRange::network(prefix.network(), prefix.length());
        let mut found: Option<(bool, BTreeSet<usize>)> = None;
        for (_, served) in self.served.range(range.first()..=range.last()) {
            let indexes = served.prefixes.iter().filter(|(other, _)| *other == prefix);
            let indexes: BTreeSet<_> = indexes.map(|(_, index)| *index).collect();
            if indexes.is_empty() {
                continue;
            }
            let is_de_preferred = self.is_de_preferred || served.failing;
            found = Some(match found {
                None => (is_de_preferred, indexes),
                Some((all_de_preferred, all_indexes)) => {
                    (all_de_preferred && is_de_preferred, &all_indexes | &indexes)
                }
            });
        }
        let (is_de_preferred, indexes) = found?;
        let med = is_de_preferred.then(|| de_preferred_med(prefix));
        Some((prefix.family(), med, indexes))
    }

    fn class(&mut self, input: &RouteInput<'_, '_>, key: ClassKey) -> Arc<RouteClass> {
        let compute = |(family, de_preferred, indexes): &ClassKey| {
            let advertisements: Vec<_> =
                indexes.iter().map(|index| input.advertisements.get(*index)).collect();
            Arc::new(class(&advertisements, *family, input.sessions, *de_preferred))
        };
        Arc::clone(self.classes.entry(key).or_insert_with_key(compute))
    }

    /// Returns the routes that the node advertises.
    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Returns the classes of the routes, with the number of prefixes of each.
    #[must_use]
    pub const fn counts(&self) -> &ClassCounts {
        &self.counts
    }
}

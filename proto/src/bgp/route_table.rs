//! The routes that a node advertises, updated address by address. Pure; the memo of the speaker's
//! plan owns the one [`RouteTable`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::drain::PeerNames;
use super::route_class::de_preferred_med;
use super::routes::{RouteInput, class, served_address};
use super::{Prefix, RouteClass, Withdrawable};
use crate::announce::{ClusterView, ServiceView};
use crate::range::{AddressRange, Family};
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
    served: BTreeMap<IpAddr, ServedAddress>,
    /// The prefixes that must be computed again.
    stale: BTreeSet<Prefix>,
    /// Each class that was computed since the latest [`RouteTable::clear`], with whether a router
    /// was removed from it, because the route is withdrawn from that router. 10,000 prefixes have
    /// only a handful of classes.
    classes: BTreeMap<ClassKey, (Arc<RouteClass>, bool)>,
    /// True if every route of the node was de-preferred at the latest update.
    is_de_preferred: bool,
    withdrawable: Withdrawable,
    routes: Routes,
    counts: ClassCounts,
    withdrawn: BTreeSet<Prefix>,
}

/// An address that the node may advertise.
#[derive(Debug, PartialEq, Eq)]
struct ServedAddress {
    /// True if the endpoints on the node fail their health check.
    failing: bool,
    /// The prefixes that announce the address, each with the index of its BGPAdvertisement.
    prefixes: Box<[(Prefix, usize)]>,
}

/// The key of a [`RouteClass`]: prefixes with the same family and the same properties share one
/// class. The fields are the family, [`de_preferred_med`] if all addresses in the prefix that the
/// node can serve are de-preferred, the BGPPeers from whose routers the node may withdraw all these
/// addresses, and the indexes of the BGPAdvertisements that announce any of them.
type ClassKey = (Family, Option<u32>, PeerNames, BTreeSet<usize>);

impl RouteTable {
    /// Drops everything that follows from sessions, advertisements, pools and nodes.
    pub fn clear(&mut self) {
        self.stale.extend(self.routes.keys());
        self.stale.extend(&self.withdrawn);
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
            ServedAddress { failing: served.serving.failing, prefixes }
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
        if *input.withdrawable != self.withdrawable {
            let before = std::mem::replace(&mut self.withdrawable, input.withdrawable.clone());
            let addresses = before.keys().chain(self.withdrawable.keys());
            let changed =
                addresses.filter(|address| before.get(*address) != self.withdrawable.get(*address));
            let served = changed.filter_map(|address| self.served.get(address));
            let prefixes = served.flat_map(|served| &served.prefixes);
            self.stale.extend(prefixes.map(|(prefix, _)| *prefix));
        }
        for prefix in std::mem::take(&mut self.stale) {
            self.update_prefix(input, prefix);
        }
    }

    fn update_prefix(&mut self, input: &RouteInput<'_, '_>, prefix: Prefix) {
        let class = self.class_key(prefix).map(|key| self.class(input, key));
        if class.as_ref().is_some_and(|(_, is_withdrawn)| *is_withdrawn) {
            self.withdrawn.insert(prefix);
        } else {
            self.withdrawn.remove(&prefix);
        }
        let class = class.map(|(class, _)| class);
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
        let mut found: Option<(bool, PeerNames, BTreeSet<usize>)> = None;
        for (address, served) in self.served.range(range.first()..=range.last()) {
            let indexes = served.prefixes.iter().filter(|(other, _)| *other == prefix);
            let indexes: BTreeSet<_> = indexes.map(|(_, index)| *index).collect();
            if indexes.is_empty() {
                continue;
            }
            let is_de_preferred = self.is_de_preferred || served.failing;
            let peers = self.withdrawable.get(address).cloned().unwrap_or_default();
            found = Some(match found {
                None => (is_de_preferred, peers, indexes),
                Some((all_de_preferred, withdrawable, all_indexes)) => (
                    all_de_preferred && is_de_preferred,
                    Arc::new(&*withdrawable & &*peers),
                    &all_indexes | &indexes,
                ),
            });
        }
        let (is_de_preferred, withdrawable, indexes) = found?;
        let med = is_de_preferred.then(|| de_preferred_med(prefix));
        Some((prefix.family(), med, withdrawable, indexes))
    }

    fn class(&mut self, input: &RouteInput<'_, '_>, key: ClassKey) -> (Arc<RouteClass>, bool) {
        let found = self.classes.entry(key).or_insert_with_key(
            |(family, de_preferred, withdrawable, indexes)| {
                let advertisements: Vec<_> =
                    indexes.iter().map(|index| input.advertisements.get(*index)).collect();
                let mut class = class(&advertisements, *family, input.sessions, *de_preferred);
                let is_withdrawn = class.remove_peers(withdrawable);
                (Arc::new(class), is_withdrawn)
            },
        );
        found.clone()
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

    /// Returns the number of prefixes that are withdrawn from at least one router, because the node
    /// drains or is cordoned, and other nodes advertise them.
    #[must_use]
    pub fn withdrawn(&self) -> usize {
        self.withdrawn.len()
    }
}

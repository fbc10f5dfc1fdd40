//! The boot epochs of this node's links, so that a link knows another link of its own node by its frames. Written by the driver
//! of the links, read by their threads without a lock.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;

/// Epochs, and the link that has each.
#[derive(Debug, Default)]
pub struct Siblings(ArcSwap<BTreeMap<u64, Place>>);

/// A link's place among those of its node that are on one segment: the first one speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// This node announces nothing there.
    unselected: bool,
    index: u32,
}

impl Siblings {
    /// The link `index` speaks with `epoch` from now on.
    pub fn add(&self, index: u32, epoch: u64, selected: bool) {
        self.0.rcu(|known| {
            let mut known = without(known, index);
            known.insert(epoch, Place { unselected: !selected, index });
            known
        });
    }

    /// Notes whether this node announces anything on the link `index`.
    pub fn select(&self, index: u32, selected: bool) {
        let known = self.0.load();
        let stale = |(_, place): &(&u64, &Place)| place.index == index && place.unselected == selected;
        if let Some((epoch, _)) = known.iter().find(stale) {
            self.add(index, *epoch, selected);
        }
    }

    /// The link `index` speaks no longer.
    pub fn remove(&self, index: u32) {
        self.0.rcu(|known| without(known, index));
    }

    /// True if the link with the epoch `other` speaks in place of the one with the epoch `own`, if
    /// it is another one.
    #[must_use]
    pub fn precedes(&self, other: u64, own: u64) -> Option<bool> {
        let known = self.0.load();
        let (other, own) = (known.get(&other)?, known.get(&own)?);
        (other.index != own.index).then_some(other < own)
    }
}

fn without(known: &BTreeMap<u64, Place>, index: u32) -> BTreeMap<u64, Place> {
    known.iter().filter(|(_, place)| place.index != index).map(|(epoch, place)| (*epoch, *place)).collect()
}

//! The boot epochs of this node's links, so that a link knows another link of its own node by its frames. Written by the driver
//! of the links, read by their threads without a lock.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;

/// Epochs, and the index of the link that has each.
#[derive(Debug, Default)]
pub struct Siblings(ArcSwap<BTreeMap<u64, u32>>);

impl Siblings {
    /// The link `index` speaks with `epoch` from now on.
    pub fn add(&self, index: u32, epoch: u64) {
        self.0.rcu(|known| {
            let mut known = without(known, index);
            known.insert(epoch, index);
            known
        });
    }

    /// The link `index` speaks no longer.
    pub fn remove(&self, index: u32) {
        self.0.rcu(|known| without(known, index));
    }

    /// The link that speaks with this epoch.
    #[must_use]
    pub fn find(&self, epoch: u64) -> Option<u32> {
        self.0.load().get(&epoch).copied()
    }
}

fn without(known: &BTreeMap<u64, u32>, index: u32) -> BTreeMap<u64, u32> {
    known.iter().filter(|(_, other)| **other != index).map(|(epoch, other)| (*epoch, *other)).collect()
}

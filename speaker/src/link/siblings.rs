//! Epochs of this node's interfaces, by which an interface recognizes frames of the node's other
//! interfaces. The driver of the interfaces writes the epochs, and the interfaces' threads read
//! them without a lock.

use std::collections::BTreeMap;

use arc_swap::ArcSwap;

/// Epochs of this node's interfaces, each with the precedence of its interface.
#[derive(Debug, Default)]
pub struct Siblings(ArcSwap<BTreeMap<u64, Precedence>>);

/// Precedence of an interface among this node's interfaces on the same segment. The interface with
/// the lowest value is active; the others are standby interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precedence {
    /// True if no advertisement allows this node to announce on the interface.
    unselected: bool,
    index: u32,
}

impl Siblings {
    /// Records that the interface `index` uses `epoch` from now on.
    pub fn add(&self, index: u32, epoch: u64, selected: bool) {
        self.0.rcu(|known| {
            let mut known = copy_without(known, index);
            known.insert(epoch, Precedence { unselected: !selected, index });
            known
        });
    }

    /// Records whether advertisements allow this node to announce on the interface `index`.
    pub fn set_selected(&self, index: u32, selected: bool) {
        let known = self.0.load();
        let stale = |(_, precedence): &(&u64, &Precedence)| {
            precedence.index == index && precedence.unselected == selected
        };
        if let Some((epoch, _)) = known.iter().find(stale) {
            self.add(index, *epoch, selected);
        }
    }

    /// Removes the interface `index` once this node stops using it.
    pub fn remove(&self, index: u32) {
        self.0.rcu(|known| copy_without(known, index));
    }

    /// Returns whether the interface with the epoch `other` takes precedence over the one with the
    /// epoch `own`. None: both are the same interface, or one of the epochs is unknown.
    #[must_use]
    pub fn precedes(&self, other: u64, own: u64) -> Option<bool> {
        let known = self.0.load();
        let (other, own) = (known.get(&other)?, known.get(&own)?);
        (other.index != own.index).then_some(other < own)
    }
}

fn copy_without(known: &BTreeMap<u64, Precedence>, index: u32) -> BTreeMap<u64, Precedence> {
    known
        .iter()
        .filter(|(_, precedence)| precedence.index != index)
        .map(|(epoch, precedence)| (*epoch, *precedence))
        .collect()
}

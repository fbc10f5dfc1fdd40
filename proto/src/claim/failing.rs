//! Which units a node's health checks fail for: what each says of itself in its hellos counts, for itself as for the others, so that
//! rank stays common knowledge. What does not fit in a hello counts for nobody.

use std::net::IpAddr;
use std::time::Duration;

use super::Claims;
use crate::Instant;
use crate::election::Unit;
use crate::wire::hello::ADDRESSES_PER_FRAME_MAX;

/// Hellos that say something new of what fails are so far apart at least: as often as one who holds something speaks anyway, however
/// many checks come and go.
pub(super) const FAILING_SAID_EVERY: Duration = Duration::from_millis(50);

/// What this node fails for: first addresses of units, ascending, at most [`ADDRESSES_PER_FRAME_MAX`].
#[derive(Debug, Default)]
pub(super) struct Failing {
    /// By its units; the next hello says it.
    now: Box<[IpAddr]>,
    /// What the last two hellos said, the last one first.
    said: [Box<[IpAddr]>; 2],
    /// How many more there are that do not fit.
    untold: usize,
}

impl Failing {
    /// Whether it keeps us from taking the unit from another: as long as one of the last two hellos said so, too. The one that took it
    /// back may be lost, or overtaken by our claim, which nobody would understand without it.
    pub(super) fn counts_for(&self, unit: &Unit) -> bool {
        self.said.iter().chain([&self.now]).any(|failing| names(failing, unit))
    }
}

/// Whether one of the unit's addresses is among these: views may differ on which is the first.
fn names(failing: &[IpAddr], unit: &Unit) -> bool {
    !failing.is_empty() && unit.addresses.iter().any(|address| failing.binary_search(address).is_ok())
}

impl Claims {
    /// Whether a node's last hello said that its health checks of the unit fail.
    pub(super) fn fails(&self, node: &str, unit: &Unit) -> bool {
        if *node == *self.config.node {
            return names(&self.own.failing.said[0], unit);
        }
        self.peers.get(node).is_some_and(|peer| names(&peer.failing, unit))
    }

    /// The units are others, and with them perhaps what this node fails for: then a hello says so soon.
    pub(super) fn look_what_fails(&mut self, now: Instant) {
        let node = &*self.config.node;
        let fails = |unit: &Unit| unit.failing && unit.candidate(node).is_some();
        let mut firsts = self.units.iter().filter(|(_, state)| fails(&state.unit)).map(|(first, _)| *first);
        let told: Box<[IpAddr]> = firsts.by_ref().take(ADDRESSES_PER_FRAME_MAX).collect();
        let untold = firsts.count();
        self.counts.failing_untold += untold.saturating_sub(self.own.failing.untold) as u64;
        self.own.failing.untold = untold;
        if *told != *self.own.failing.now {
            self.own.failing.now = told;
            self.own.next_hello = self.own.next_hello.min(now.max(self.own.last_hello + FAILING_SAID_EVERY));
        }
    }

    /// What a hello is to say, and whether the one before it said something else: then it is to be said again soon. What neither of the
    /// two says counts against us no longer, as soon as anything happens: who holds it says hello.
    pub(super) fn say_failing(&mut self) -> (Vec<IpAddr>, bool) {
        let Failing { now, said: [last, before], .. } = &mut self.own.failing;
        let over = std::mem::replace(before, std::mem::replace(last, now.clone()));
        self.own.dirty.addresses.extend(over.iter().filter(|address| !before.contains(address)));
        (now.to_vec(), last != before)
    }

    /// A peer's hello says what it fails for.
    pub(super) fn on_failing(&mut self, node: &str, mut failing: Vec<IpAddr>) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        failing.sort_unstable();
        failing.dedup();
        self.counts.over_limit += failing.len().saturating_sub(ADDRESSES_PER_FRAME_MAX) as u64;
        failing.truncate(ADDRESSES_PER_FRAME_MAX);
        if *failing != *peer.failing {
            // Whoever holds them, and whoever waits for them.
            self.own.dirty.addresses.extend(failing.iter().chain(&peer.failing));
            peer.failing = failing.into();
        }
    }
}

//! Which addresses a node's health checks fail for: what each says of itself in its hellos counts, for itself as for the others, so that
//! rank stays common knowledge. What does not fit in one hello is said by several, a stretch of the list each, over and over.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use super::{CLAIMS_PER_PEER_MAX, Claims};
use crate::Instant;
use crate::election::Unit;
use crate::wire::hello::{ADDRESSES_PER_FRAME_MAX, Failing};

/// Hellos that say something new of what fails are so far apart at least: as often as one who holds something speaks anyway, however
/// many checks come and go.
pub(super) const FAILING_SAID_EVERY: Duration = Duration::from_millis(50);
/// How often the end of the list has to come until a newcomer has heard all of it, wherever in the list we were.
const ENDS_FOR_NEWCOMERS: u8 = 2;

/// The addresses that this node fails for.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// By its units; the next hellos say it.
    now: BTreeSet<IpAddr>,
    /// What the others know who heard every hello, and what they knew before each address was last spoken of.
    said: [BTreeSet<IpAddr>; 2],
    /// Where the next hello goes on; none: at the beginning.
    next: Option<IpAddr>,
    /// How often the end of the list has yet to come for those who were newly heard.
    newcomers: u8,
}

impl Failures {
    /// How many of the unit's addresses keep us from taking it from another: as long as one of the last two hellos that spoke of one said so,
    /// too. The one that took it back may be lost, or overtaken by our claim, which nobody would understand without it.
    pub(super) fn counts_for(&self, unit: &Unit) -> u8 {
        let all = || self.said.iter().chain([&self.now]);
        count(unit, |address| all().any(|failing| failing.contains(address)))
    }

    /// Someone was newly heard, and knows nothing of the list yet, or what was said long ago: a hello that says all makes that good.
    pub(super) fn tell_newcomers(&mut self) {
        if self.now.len() > ADDRESSES_PER_FRAME_MAX {
            self.newcomers = ENDS_FOR_NEWCOMERS;
        }
    }

    /// What the next hello says. Each stretch begins with the last address of the one before, so that none between them is left out.
    fn stretch(&self) -> Failing {
        let goes_on = self.next.filter(|_| self.now.len() > ADDRESSES_PER_FRAME_MAX);
        let first = goes_on.and_then(|next| self.now.range(..=next).next_back());
        let from = first.map_or(Bound::Unbounded, |first| Bound::Included(*first));
        let addresses: Vec<_> =
            self.now.range((from, Bound::Unbounded)).take(ADDRESSES_PER_FRAME_MAX).copied().collect();
        let more_after = addresses.last() != self.now.last();
        Failing { addresses, more_before: first.is_some(), more_after }
    }

    /// Whether the others may have yet to hear of something: then a hello says it soon.
    fn is_news(&self) -> bool {
        let [last, before] = &self.said;
        self.newcomers > 0 || self.now != *last || last != before
    }
}

/// How many of the unit's addresses fail.
fn count(unit: &Unit, fails: impl Fn(&IpAddr) -> bool) -> u8 {
    u8::try_from(unit.addresses.iter().filter(|address| fails(address)).count()).unwrap_or(u8::MAX)
}

/// The stretch of addresses that a hello speaks of.
type Range = (Bound<IpAddr>, Bound<IpAddr>);

/// That of this one, its addresses ascending; none if it speaks of none.
fn range(said: &Failing) -> Option<Range> {
    let edge = |more: bool, address: Option<&IpAddr>| match more {
        true => address.map(|address| Bound::Included(*address)),
        false => Some(Bound::Unbounded),
    };
    edge(said.more_before, said.addresses.first()).zip(edge(said.more_after, said.addresses.last()))
}

/// Notes that of a stretch these and no others fail, ascending; gives what that changes, and how many found no room.
fn learn(known: &mut BTreeSet<IpAddr>, range: Range, failing: &[IpAddr]) -> (Vec<IpAddr>, usize) {
    let gone = known.range(range).filter(|address| failing.binary_search(address).is_err());
    let mut changed: Vec<_> = gone.copied().collect();
    for address in &changed {
        known.remove(address);
    }
    let mut new: Vec<_> = failing.iter().filter(|address| !known.contains(*address)).copied().collect();
    let room = CLAIMS_PER_PEER_MAX.saturating_sub(known.len());
    let over = new.len().saturating_sub(room);
    new.truncate(room);
    known.extend(&new);
    changed.append(&mut new);
    (changed, over)
}

impl Claims {
    /// For how many of the unit's addresses a node's hellos say that its health checks fail.
    pub(super) fn fails(&self, node: &str, unit: &Unit) -> u8 {
        let own = (*node == *self.config.node).then_some(&self.own.failing.said[0]);
        let known = own.or_else(|| Some(&self.peers.get(node)?.failing)).filter(|failing| !failing.is_empty());
        known.map_or(0, |failing| count(unit, |address| failing.contains(address)))
    }

    /// The units are others, and with them perhaps what this node fails for: then a hello says so soon.
    pub(super) fn look_what_fails(&mut self, now: Instant) {
        let node = &*self.config.node;
        let units = self.units.values().map(|state| &state.unit);
        let ours = units.filter(|unit| !unit.failing.is_empty() && unit.candidate(node).is_some());
        let failing = ours.flat_map(|unit| unit.failing.iter().copied()).collect();
        if failing != self.own.failing.now {
            self.own.failing.now = failing;
            self.own.next_hello = self.own.next_hello.min(now.max(self.own.last_hello + FAILING_SAID_EVERY));
        }
    }

    /// What a hello is to say, and whether more is to be said soon: the rest of the list, or the same a second time. What no hello of
    /// the last two that spoke of it says counts against us no longer, as soon as anything happens: who holds it says hello.
    pub(super) fn say_failing(&mut self) -> (Failing, bool) {
        let own = &mut self.own.failing;
        let said = own.stretch();
        if let Some(range) = range(&said) {
            let [last, before] = &mut own.said;
            let known: Vec<_> = last.range(range).copied().collect();
            let (changed, _) = learn(before, range, &known);
            learn(last, range, &said.addresses);
            self.own.dirty.addresses.extend(changed.into_iter().filter(|address| !before.contains(address)));
        }
        own.next = said.addresses.last().filter(|_| said.more_after).copied();
        own.newcomers = own.newcomers.saturating_sub(u8::from(!said.more_after));
        (said, own.is_news())
    }

    /// A peer's hello says what it fails for.
    pub(super) fn on_failing(&mut self, node: &str, mut said: Failing) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        said.addresses.sort_unstable();
        said.addresses.dedup();
        let Some(range) = range(&said) else { return };
        let (changed, over) = learn(&mut peer.failing, range, &said.addresses);
        self.counts.over_limit += over as u64;
        // Whoever holds them, and whoever waits for them.
        self.own.dirty.addresses.extend(changed);
    }
}

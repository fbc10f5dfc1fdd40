//! Exchange of the addresses whose health checks fail on a node. Part of the claim machine of one
//! interface.
//!
//! The rank of a node depends only on the failures that its hellos have reported, also where the
//! node computes its own rank. All nodes therefore compute the same rank. A list that does not fit
//! into one hello is sent in ranges, one per hello, over and over.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::{CLAIMS_PER_PEER_MAX, ClaimMachine};
use crate::Instant;
use crate::election::Unit;
use crate::wire::hello::{ADDRESSES_PER_FRAME_MAX, FailingReport};

/// Minimum interval between hellos that report changed failures, however many health checks change.
/// An owner sends hellos at the same interval by default.
pub(super) const FAILING_REPORT_INTERVAL: Duration = Duration::from_millis(50);
/// Number of times that the end of the list of failing addresses must be sent until a new peer has
/// received the whole list. The first pass may have begun in the middle of the list.
const ENDS_FOR_NEWCOMERS: u8 = 2;

/// Addresses whose health checks fail on this node.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Addresses of this node's units that fail now; the next hellos report them.
    now: BTreeSet<IpAddr>,
    /// Addresses that failed according to the latest report on each address, and according to the
    /// report before it. A peer that received every hello has stored the first set.
    reported: [BTreeSet<IpAddr>; 2],
    /// First address of the range that the next hello reports; `None` for the start of the list.
    next: Option<IpAddr>,
    /// Number of times that the end of the list must still be sent, until new peers have the whole
    /// list.
    newcomers: u8,
}

impl Failures {
    /// Returns whether an address counts as failing when this node decides whether to take it from
    /// another owner.
    ///
    /// An address counts if its health check fails now, or if one of the latest two reports about
    /// the address was a failure. The hello that reported the recovery may be lost, or arrive after
    /// this node's claim. Peers would then not accept the claim.
    pub(super) fn counts_for(&self, address: IpAddr) -> bool {
        self.reported.iter().chain([&self.now]).any(|failing| failing.contains(&address))
    }

    /// Returns whether an address fails according to the latest hello about it.
    pub(super) fn is_reported(&self, address: IpAddr) -> bool {
        self.reported[0].contains(&address)
    }

    /// Schedules the complete list for a new peer, which has no list or an outdated one. A list
    /// that fits into one hello needs no action, because every hello contains the whole list.
    pub(super) fn schedule_complete_list(&mut self) {
        if self.now.len() > ADDRESSES_PER_FRAME_MAX {
            self.newcomers = ENDS_FOR_NEWCOMERS;
        }
    }

    /// Returns the report for the next hello: the next range of the list. Each range begins with
    /// the last address of the range before, so that no address between two ranges is left out.
    fn next_report(&self) -> FailingReport {
        let position = self.next.filter(|_| self.now.len() > ADDRESSES_PER_FRAME_MAX);
        let first = position.and_then(|next| self.now.range(..=next).next_back());
        let from = first.map_or(Bound::Unbounded, |first| Bound::Included(*first));
        let addresses: Vec<_> = self
            .now
            .range((from, Bound::Unbounded))
            .take(ADDRESSES_PER_FRAME_MAX)
            .copied()
            .collect();
        let more_after = addresses.last() != self.now.last();
        FailingReport { addresses, more_before: first.is_some(), more_after }
    }

    /// Returns whether a peer may not have received the latest changes. The next hello then follows
    /// soon.
    fn has_unsent_changes(&self) -> bool {
        let [last, before] = &self.reported;
        self.newcomers > 0 || self.now != *last || last != before
    }
}

/// Range of addresses that the failure report of a hello covers.
type Range = (Bound<IpAddr>, Bound<IpAddr>);

/// Returns the range that a failure report covers; `None` if the report covers nothing. The
/// addresses of the report must be ascending.
fn range(report: &FailingReport) -> Option<Range> {
    let edge = |more: bool, address: Option<&IpAddr>| match more {
        true => address.map(|address| Bound::Included(*address)),
        false => Some(Bound::Unbounded),
    };
    edge(report.more_before, report.addresses.first())
        .zip(edge(report.more_after, report.addresses.last()))
}

/// Replaces the addresses of `known` within a range with `failing`, which is ascending. Returns the
/// addresses that were added or removed, and the number of those that exceed
/// [`CLAIMS_PER_PEER_MAX`].
fn replace_range(
    known: &mut BTreeSet<IpAddr>,
    range: Range,
    failing: &[IpAddr],
) -> (Vec<IpAddr>, usize) {
    let recovered = known.range(range).filter(|address| failing.binary_search(address).is_err());
    let mut changed: Vec<_> = recovered.copied().collect();
    for address in &changed {
        known.remove(address);
    }
    let mut new: Vec<_> =
        failing.iter().filter(|address| !known.contains(*address)).copied().collect();
    let room = CLAIMS_PER_PEER_MAX.saturating_sub(known.len());
    let over = new.len().saturating_sub(room);
    new.truncate(room);
    known.extend(&new);
    changed.append(&mut new);
    (changed, over)
}

impl ClaimMachine {
    /// Updates the failing addresses after a change of the units. If they have changed, schedules a
    /// hello soon.
    pub(super) fn update_failing(
        &mut self,
        changed: &[Arc<Unit>],
        removed: &[IpAddr],
        now: Instant,
    ) {
        let (node, failing) = (&*self.config.node, &mut self.own.failing.now);
        let mut has_changed = false;
        for unit in changed {
            let fails = unit.failing && unit.own_candidate(node).is_some();
            has_changed |=
                if fails { failing.insert(unit.address) } else { failing.remove(&unit.address) };
        }
        for address in removed {
            has_changed |= failing.remove(address);
        }
        if has_changed {
            self.own.next_hello =
                self.own.next_hello.min(now.max(self.own.last_hello + FAILING_REPORT_INTERVAL));
        }
    }

    /// Returns the report for the next hello, and whether another hello must follow soon, with the
    /// rest of the list or as a repeat.
    ///
    /// The latest report determines the rank of this node, and the latest two reports determine
    /// whether it may take a unit from an owner. If one of them has changed for an address, its
    /// unit is evaluated at the next input or hello.
    pub(super) fn next_failing_report(&mut self) -> (FailingReport, bool) {
        let own = &mut self.own.failing;
        let report = own.next_report();
        if let Some(range) = range(&report) {
            let [last, before] = &mut own.reported;
            let known: Vec<_> = last.range(range).copied().collect();
            let (counted, _) = replace_range(before, range, &known);
            let (ranked, _) = replace_range(last, range, &report.addresses);
            self.own.dirty.addresses.extend(counted.into_iter().chain(ranked));
        }
        own.next = report.addresses.last().filter(|_| report.more_after).copied();
        own.newcomers = own.newcomers.saturating_sub(u8::from(!report.more_after));
        (report, own.has_unsent_changes())
    }

    /// Applies the report of failing addresses in a peer's hello.
    pub(super) fn on_failing(&mut self, node: &str, mut report: FailingReport) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        report.addresses.sort_unstable();
        report.addresses.dedup();
        let Some(range) = range(&report) else { return };
        let (changed, over) = replace_range(&mut peer.failing, range, &report.addresses);
        self.counts.over_limit += over as u64;
        // The rank of the peer has changed for the units of these addresses, which concerns their
        // owners and the candidates that wait for them.
        self.own.dirty.addresses.extend(changed);
    }
}

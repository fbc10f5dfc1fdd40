//! Conflicts about addresses of this node's units, and the defenses of these addresses. Part of the
//! ownership of one interface.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

use super::probes::PROBING_STAGGER;
use super::unit::{DEFEND_INTERVAL, DEFEND_INTERVALS_PEER};

/// Minimum time for which the reported host of a conflict stays the same, even if several hosts use
/// the address.
const REPORTED_HOST_PERIOD: Duration = Duration::from_secs(1);
/// Time after which a conflict is dropped if no further frame shows it.
const ADDRESS_CONFLICT_LIFETIME: Duration = Duration::from_secs(300);
/// Maximum number of stored conflicts. Further ones only raise
/// [`ClaimCounters::over_limit`](crate::claim::ClaimCounters::over_limit).
const ADDRESS_CONFLICTS_MAX: usize = 1024;

/// A conflict: another host uses an address of this node's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressConflict {
    /// Address in conflict.
    pub address: IpAddr,
    /// Hardware address of the conflicting host.
    pub mac: Mac,
    /// Type of the host that has this hardware address.
    pub kind: ConflictKind,
}

/// Type of the host that uses an address in a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// A foreign host.
    ForeignHost,
    /// The peer with this name, which does not claim the address: its kernel replies.
    PeerKernel(Box<str>),
    /// The failed peer with this name: a device in the network still replies for its address.
    ProxyOfFailedPeer(Box<str>),
    /// The peer with this name: it uses the address or another one, but its frames do not arrive at
    /// this node, or those of this node do not arrive at the peer.
    UnheardPeer(Box<str>),
}

/// State of the conflict about one address.
#[derive(Debug)]
struct ConflictState {
    mac: Mac,
    kind: ConflictKind,
    /// Time since which `mac` and `kind` are reported.
    since: Instant,
    at: Instant,
    /// Time of the latest defense, and minimum time from it to the next one.
    defended: Option<(Instant, Duration)>,
    /// Time of the postponed address defense, if any. Because of it, the final announcement on the
    /// segment is this node's.
    due: Option<Instant>,
}

impl ConflictState {
    /// Returns whether this node leaves the address to the host.
    const fn is_left(&self) -> bool {
        matches!(self.kind, ConflictKind::ForeignHost | ConflictKind::UnheardPeer(_))
    }
}

/// Conflicts with foreign hosts or kernels of peers, by address.
#[derive(Debug, Default)]
pub(super) struct AddressConflicts {
    table: BTreeMap<IpAddr, ConflictState>,
    /// Time at which the next postponed address defense is due.
    defense_due: Option<Instant>,
}

impl AddressConflicts {
    pub(super) fn iter(&self) -> impl Iterator<Item = AddressConflict> + '_ {
        self.table.iter().map(|(address, seen)| AddressConflict {
            address: *address,
            mac: seen.mac,
            kind: seen.kind.clone(),
        })
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.defense_due
    }

    /// Records a conflict. Returns false if there are too many.
    pub(super) fn record(
        &mut self,
        address: IpAddr,
        mac: Mac,
        kind: &ConflictKind,
        now: Instant,
    ) -> bool {
        if self.table.len() >= ADDRESS_CONFLICTS_MAX && !self.table.contains_key(&address) {
            return false;
        }
        let seen = self.table.entry(address).or_insert_with(|| ConflictState {
            mac,
            kind: kind.clone(),
            since: now,
            at: now,
            defended: None,
            due: None,
        });
        seen.at = now;
        // A host that uses many hardware addresses must not cause a new report for each of them.
        if (seen.mac, &seen.kind) != (mac, kind) && now.since(seen.since) >= REPORTED_HOST_PERIOD {
            (seen.mac, seen.kind, seen.since) = (mac, kind.clone(), now);
        }
        true
    }

    /// Returns whether this node defends an address now, and records the defense. The interval
    /// between two defenses is limited, so that two hosts that both defend an address do not flood
    /// the segment. A defense that would be too early is postponed.
    pub(super) fn defend(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(seen) = self.table.get_mut(&address) else { return false };
        let due = seen.defended.map_or(now, |(at, interval)| at + interval);
        if due > now {
            seen.due = Some(due);
            self.defense_due = self.defense_due.into_iter().chain([due]).min();
            return false;
        }
        let interval = match (&seen.kind, seen.defended) {
            (ConflictKind::ForeignHost, _) => DEFEND_INTERVAL,
            (_, before) => DEFEND_INTERVALS_PEER.next(before.map(|(_, interval)| interval)),
        };
        (seen.defended, seen.due) = (Some((now, interval)), None);
        true
    }

    /// Returns the addresses whose postponed defense is due, and records the defenses.
    pub(super) fn defend_due(&mut self, now: Instant) -> Vec<IpAddr> {
        if self.defense_due.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let is_due = |(_, seen): &(&IpAddr, &ConflictState)| seen.due.is_some_and(|at| now >= at);
        let due = self.table.iter().filter(is_due).map(|(address, _)| *address);
        let mut due: Vec<_> = due.collect();
        due.retain(|address| self.defend(*address, now));
        self.defense_due = self.table.values().filter_map(|seen| seen.due).min();
        due
    }

    /// Corrects the conflicts with a peer whose frames turn out not to arrive. Since its latest
    /// frame, at `since`, its speaker may have claimed the addresses, so nothing shows that its
    /// kernel replies.
    pub(super) fn correct(&mut self, node: &str, since: Instant) {
        let is_kernel =
            |kind: &ConflictKind| matches!(kind, ConflictKind::PeerKernel(name) if **name == *node);
        for seen in self.table.values_mut() {
            if is_kernel(&seen.kind) && seen.at >= since {
                seen.kind = ConflictKind::UnheardPeer(node.into());
            }
        }
    }

    /// Returns whether a foreign host has used an unproven address since the probes of a peer began
    /// that claims the address now.
    pub(super) fn have_newer_answer(&self, address: IpAddr, now: Instant) -> bool {
        let is_newer = |seen: &ConflictState| {
            seen.kind == ConflictKind::ForeignHost && now.since(seen.at) < PROBING_STAGGER
        };
        self.table.get(&address).is_some_and(is_newer)
    }

    /// Ends the conflict about an address.
    pub(super) fn end(&mut self, address: IpAddr) {
        self.table.remove(&address);
    }

    /// Ends the conflict about an address that this node has left to a host, because the host does
    /// not reply any more. A kernel of a peer remains reported.
    pub(super) fn end_left(&mut self, address: IpAddr) {
        if self.table.get(&address).is_some_and(ConflictState::is_left) {
            self.table.remove(&address);
        }
    }

    /// Drops the conflicts that are over, and those about addresses that are no units.
    pub(super) fn expire(&mut self, is_unit: impl Fn(IpAddr) -> bool, now: Instant) {
        self.table.retain(|address, seen| {
            now.since(seen.at) < ADDRESS_CONFLICT_LIFETIME && is_unit(*address)
        });
    }
}

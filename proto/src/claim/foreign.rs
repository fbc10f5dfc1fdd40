//! Others that use an address which is ours to announce: hosts that are none of us, and the kernels of members.
//!
//! A fresh address is answered for at once and checked behind that (as RFC 4429 does for IPv6): it was nobody's before, and a
//! stranger that has it is in the right. An address that we have held for longer is defended (RFC 5227 section 2.4 c), and kept.

use std::net::IpAddr;
use std::time::Duration;

use super::unit::UnitState;
use super::{Claims, Output};
use crate::Instant;
use crate::wire::Mac;

/// Between two of the questions whether someone has an address.
const CHECK_EVERY: Duration = Duration::from_millis(300);
/// How many times that is asked: at 0, 300 and 600 ms.
const CHECKS: u8 = 3;
/// Questions of all addresses together keep this distance: ten thousand fresh addresses must not flood the wire.
const CHECK_PACE: Duration = Duration::from_millis(1);
/// How long an address that a stranger has is left to it before it is looked at again.
const CONTEST_WAIT: Duration = Duration::from_secs(10);
/// How long each next in line waits for the one before it to look: it takes the checks.
pub(super) const CONTEST_STAGGER: Duration = Duration::from_secs(1);
/// An address is defended at most this often (RFC 5227's DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// What a former holder sent a moment ago may still arrive, and what one sent who claimed it beside us and has let go of it again.
const ECHO: Duration = Duration::from_secs(1);
/// Whoever is named as the trouble of an address stays so for this long, however many others there are.
const NAMED_FOR: Duration = Duration::from_secs(1);
/// Trouble that is not seen again for so long is over.
const TROUBLE_LIFETIME: Duration = Duration::from_secs(300);
/// How many troubles are kept; more are counted and ignored.
const TROUBLES_MAX: usize = 1024;

/// Who else uses an address that is ours to announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The address.
    pub address: IpAddr,
    /// The hardware address that it was seen with.
    pub mac: Mac,
    /// Whose that is.
    pub kind: TroubleKind,
}

/// Whose a hardware address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// Nobody's of us.
    Stranger,
    /// This member's, which does not claim the address: its kernel answers for it.
    Kernel(Box<str>),
    /// This member's, which is dead but for that: a device in the network answers for it.
    Proxied(Box<str>),
}

/// What is kept of a trouble, by its address.
#[derive(Debug)]
pub(super) struct Seen {
    mac: Mac,
    kind: TroubleKind,
    /// Since when it is that one's.
    since: Instant,
    at: Instant,
    defended: Option<Instant>,
    /// When it is defended next: the last word must be ours.
    due: Option<Instant>,
}

/// The questions whether someone has an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checks {
    sent: u8,
    pub(super) next: Instant,
    /// The moment `next` is its own: it had to wait for others.
    in_line: bool,
}

impl Claims {
    /// What is wrong with addresses here, by address.
    pub fn troubles(&self) -> impl Iterator<Item = Trouble> + '_ {
        self.troubles.iter().map(|(address, seen)| Trouble {
            address: *address,
            mac: seen.mac,
            kind: seen.kind.clone(),
        })
    }

    /// True if a host with this hardware address, which was heard with `address`, can tell this
    /// node that it still hears when members are silent. Members cannot, as they may have failed,
    /// nor can addresses of ours, which they announce.
    #[must_use]
    pub fn is_witness(&self, mac: Mac, address: IpAddr) -> bool {
        let is_newcomer = || self.newcomers.values().any(|newcomer| newcomer.mac == mac);
        let is_member = || self.peers.values().any(|peer| peer.macs.contains(&mac)) || is_newcomer();
        !self.unit_of.contains_key(&address) && !is_member()
    }

    /// A frame says that `mac`, which is not ours, has an address. `announced`: nobody had asked.
    pub(super) fn foreign(&mut self, address: IpAddr, mac: Mac, announced: bool, now: Instant) {
        let Some(first) = self.unit_of.get(&address).copied() else { return };
        let held = self.own.held.contains_key(&address);
        // A deaf member cannot learn that it is not alone: each of its announcements needs an
        // answer, or its clients' caches keep the address of a node that receives nothing.
        if announced && held && self.is_of_deaf_member(mac) {
            self.outputs.push_back(Output::Defend(address));
            return;
        }
        let Some(kind) = self.whose(address, mac, now) else { return };
        let checked = self.units.get(&first).is_some_and(|state| state.is_checked());
        if !held && !checked {
            return;
        }
        self.note_trouble(address, mac, kind.clone(), now);
        match kind {
            TroubleKind::Stranger => {
                self.counts.strangers += 1;
                if checked { self.contest(first, now) } else { self.defend(address, now) }
            }
            TroubleKind::Kernel(_) => {
                self.counts.kernel_answers += 1;
                if announced {
                    self.defend(address, now);
                }
            }
            // It answers questions for a dead member; an announcement of its own means that the member lives, and does not hear us.
            TroubleKind::Proxied(node) if announced => self.yield_to(&node, first, now),
            TroubleKind::Proxied(_) => {}
        }
    }

    /// Whose frame it is; none if it is nothing to worry about: the claims of living members are settled between members, and
    /// what a former holder said lately may still be on its way.
    fn whose(&self, address: IpAddr, mac: Mac, now: Instant) -> Option<TroubleKind> {
        // A node may have been reinstalled under another name: the member that lives is the sender.
        let with_mac = self.peers.iter().filter(|(_, peer)| peer.macs.contains(&mac));
        let Some((name, peer)) = with_mac.min_by_key(|(_, peer)| peer.dead) else {
            let unproven = self.newcomers.values().any(|newcomer| newcomer.mac == mac);
            return (!unproven).then_some(TroubleKind::Stranger);
        };
        let lately = self.own.held.get(&address).is_some_and(|since| now.since(*since) < ECHO)
            || self.moved_lately(address, now);
        if peer.dead {
            let was_its = peer.proxied.contains(&address);
            return (was_its || !lately).then(|| TroubleKind::Proxied(name.clone()));
        }
        // Whose claims are not known yet may have said that it has this.
        (!lately && peer.generation.is_some() && !peer.claims.contains(&address))
            .then(|| TroubleKind::Kernel(name.clone()))
    }

    fn is_of_deaf_member(&self, mac: Mac) -> bool {
        self.peers.values().any(|peer| !peer.dead && peer.flags.deaf && peer.macs.contains(&mac))
    }

    fn moved_lately(&self, address: IpAddr, now: Instant) -> bool {
        let story = self.unit_of.get(&address).and_then(|first| self.units.get(first)?.story.as_ref());
        story.and_then(|story| story.moves.last()).is_some_and(|at| now.since(*at) < ECHO)
    }

    fn note_trouble(&mut self, address: IpAddr, mac: Mac, kind: TroubleKind, now: Instant) {
        if self.troubles.len() >= TROUBLES_MAX && !self.troubles.contains_key(&address) {
            self.counts.over_limit += 1;
            return;
        }
        let seen = self.troubles.entry(address).or_insert_with(|| Seen {
            mac,
            kind: kind.clone(),
            since: now,
            at: now,
            defended: None,
            due: None,
        });
        seen.at = now;
        // Whoever lies in many names must not keep those busy who are told of each.
        if (seen.mac, &seen.kind) != (mac, &kind) && now.since(seen.since) >= NAMED_FOR {
            (seen.mac, seen.kind, seen.since) = (mac, kind, now);
        }
    }

    /// Tells the wire that the address is ours, but not so often that two who insist fill it.
    fn defend(&mut self, address: IpAddr, now: Instant) {
        let Some(seen) = self.troubles.get_mut(&address) else { return };
        let due = seen.defended.map_or(now, |at| at + DEFEND_INTERVAL);
        if due > now {
            seen.due = Some(due);
            self.defence_due = self.defence_due.into_iter().chain([due]).min();
            return;
        }
        (seen.defended, seen.due) = (Some(now), None);
        if self.own.held.contains_key(&address) {
            self.outputs.push_back(Output::Defend(address));
        }
    }

    /// Defends what was announced by someone else while the last defence was too recent for another.
    pub(super) fn defend_later(&mut self, now: Instant) {
        if self.defence_due.is_none_or(|at| now < at) {
            return;
        }
        let is_due = |(_, seen): &(&IpAddr, &Seen)| seen.due.is_some_and(|at| now >= at);
        let due: Vec<_> = self.troubles.iter().filter(is_due).map(|(address, _)| *address).collect();
        for address in due {
            self.defend(address, now);
        }
        self.defence_due = self.troubles.values().filter_map(|seen| seen.due).min();
    }

    /// A stranger has a fresh address: nobody of us answers for it until it lets go.
    fn contest(&mut self, first: IpAddr, now: Instant) {
        let Some(state) = self.units.get_mut(&first) else { return };
        let addresses = state.unit.addresses.clone();
        state.leave_to_stranger(now + CONTEST_WAIT);
        self.own.decided.contest.extend(&addresses);
        self.own.dirty.addresses.insert(first);
    }

    /// A member said that a stranger has these.
    pub(super) fn on_contested(&mut self, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            if let Some(state) = self.unit_of.get(address).and_then(|first| self.units.get_mut(first)) {
                state.leave_to_stranger(now + CONTEST_WAIT);
            }
        }
    }

    fn yield_to(&mut self, node: &str, first: IpAddr, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.be_more_patient();
        let until = now + peer.patience;
        let Some(state) = self.units.get_mut(&first) else { return };
        // It announced them although it had been found dead: it holds them.
        peer.buried.extend(&state.unit.addresses);
        state.story().shunned = Some(until);
        self.own.decided.refuse.extend(&state.unit.addresses);
        self.own.dirty.addresses.insert(first);
    }

    /// Whoever claims an address in the end has found it free, or knows better.
    pub(super) fn end_contest(&mut self, address: IpAddr) {
        self.troubles.remove(&address);
        if let Some(state) = self.unit_of.get(&address).and_then(|first| self.units.get_mut(first)) {
            state.contested = false;
        }
    }

    /// Asks once more for a unit's addresses, if it is time; true when all was asked and time enough has passed for answers.
    pub(super) fn go_on_checking(&mut self, state: &mut UnitState, now: Instant) -> bool {
        let Some(checks) = state.story.as_ref().and_then(|story| story.checks).filter(|checks| now >= checks.next)
        else {
            return false;
        };
        if checks.sent == CHECKS {
            state.story().checks = None;
            return true;
        }
        if !checks.in_line {
            let next = now.max(self.next_check);
            self.next_check = next + CHECK_PACE;
            if next > now {
                state.story().checks = Some(Checks { next, in_line: true, ..checks });
                return false;
            }
        }
        self.outputs.extend(state.unit.addresses.iter().map(|address| Output::Check(*address)));
        state.story().checks = Some(Checks { sent: checks.sent + 1, next: now + CHECK_EVERY, in_line: false });
        false
    }

    /// Begins to ask whether someone has a unit's addresses.
    pub(super) fn begin_checking(&mut self, state: &mut UnitState, now: Instant) {
        state.story().checks = Some(Checks { sent: 0, next: now, in_line: false });
        self.go_on_checking(state, now);
    }

    pub(super) fn forget_troubles(&mut self, now: Instant) {
        let Self { troubles, unit_of, .. } = self;
        troubles.retain(|address, seen| now.since(seen.at) < TROUBLE_LIFETIME && unit_of.contains_key(address));
    }

    /// A device goes on answering for a member that was found dead: whose addresses we took over are in doubt.
    pub(super) fn note_proxied(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get(node) else { return };
        let (mac, addresses) = (peer.mac, peer.proxied.clone());
        for address in addresses {
            self.note_trouble(address, mac, TroubleKind::Proxied(node.into()), now);
        }
    }
}

impl UnitState {
    /// Whether it is being asked for, so that an answer decides.
    fn is_checked(&self) -> bool {
        self.story.as_ref().is_some_and(|story| story.checks.is_some())
    }

    fn leave_to_stranger(&mut self, until: Instant) {
        self.contested = true;
        let story = self.story();
        (story.checks, story.pending, story.shunned) = (None, None, Some(until));
    }
}

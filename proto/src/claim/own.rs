//! The claim set of this node and the frames that carry it. Owned by the claim machine of one
//! interface.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::evaluation::DirtyUnits;
use super::failing::Failures;
use super::hello::HelloInterval;
use super::{ClaimConfig, ClaimMachine, Output};
use crate::Instant;
use crate::shared_map::SharedMap;
use crate::wire::Mac;
use crate::wire::hello::{ADDRESSES_PER_FRAME_MAX, Body, Flags, Frame, ReleaseReason};

/// A move counts as failover if at most this time passes between the latest frame of the failed
/// owner and the claim of the new one. A later move had another cause than the failure: the new
/// owner was unable to take the address earlier.
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// Delay from a claim or release to the hello or repeated release that follows. By the second
/// frame, peers detect that the first one was lost.
const HELLO_AFTER_CLAIM: Duration = Duration::from_millis(25);

/// Maximum number of parts of claim lists that one call of the machine sends.
const LIST_PARTS_PER_TURN_MAX: usize = 32;

/// Decisions that are not yet executed and sent to the peers, as lists of addresses.
#[derive(Debug, Default)]
pub(super) struct PendingDecisions {
    pub(super) take: Vec<IpAddr>,
    pub(super) repeat_claims: Vec<IpAddr>,
    pub(super) hand_over: Vec<IpAddr>,
    pub(super) refuse: Vec<IpAddr>,
    /// Addresses to release because a foreign host uses them.
    pub(super) contest: Vec<IpAddr>,
}

/// Claim list of this node of which parts remain to be sent.
#[derive(Debug)]
pub(super) struct PendingList {
    /// Peer that gets the list; `None` for the group.
    to: Option<Mac>,
    generation: u32,
    /// Number of the next part.
    part: u16,
    /// Last address that was sent.
    after: Option<IpAddr>,
}

#[derive(Debug)]
pub(super) struct OwnState {
    /// IDs of the keys with which this node can verify frames, newest first. Without a key, this
    /// node neither sends nor claims.
    pub(super) keys: Vec<u32>,
    pub(super) flags: Flags,
    /// Addresses whose health checks fail on this node.
    pub(super) failing: Failures,
    /// Addresses that this node owns, each with the time at which this node claimed it.
    pub(super) owned: SharedMap<IpAddr, Instant>,
    pub(super) last_hello: Instant,
    /// Units whose ownership may have to change.
    pub(super) dirty: DirtyUnits,
    /// Decisions that follow from one input; [`ClaimMachine::send_decisions`] sends them in as few
    /// frames as possible.
    pub(super) decided: PendingDecisions,
    pub(super) generation: u32,
    pub(super) sequence: u32,
    /// Clock value of the latest frame that this node sent, in nanoseconds.
    pub(super) clock: u64,
    pub(super) next_hello: Instant,
    pub(super) hello_interval: HelloInterval,
    /// Releases that this node will repeat, because a peer may have claimed the address at the same
    /// time and must detect that there were two owners.
    pub(super) releases_to_repeat: BTreeMap<IpAddr, ReleaseReason>,
    /// End of the current listen phase; `None` outside of one.
    pub(super) listen_until: Option<Instant>,
    /// End of this node's preempt delay; `None` after the end, or if the delay never ends.
    pub(super) preempt_delay_until: Option<Instant>,
    /// End of the standby period of this interface; `None` if no other interface of this node is
    /// active on the segment.
    pub(super) standby_until: Option<Instant>,
    pub(super) list_at: Option<Instant>,
    /// Claim lists of which parts remain to be sent, at most one for each peer and one for the
    /// group.
    lists: VecDeque<PendingList>,
    /// Time at which all owned addresses must be announced again, and whether the full series of
    /// announcements is sent.
    pub(super) refresh: Option<(Instant, bool)>,
    /// Repeated announcement of all owned addresses that is in progress: the last announced
    /// address, if any, and whether the full series of announcements is sent.
    pub(super) refreshing: Option<(Option<IpAddr>, bool)>,
    /// Time of the latest repeated announcement of all owned addresses.
    pub(super) refreshed: Option<Instant>,
    pub(super) leave_until: Option<Instant>,
    /// Times of this node's latest fences, at most [`super::hello::FENCES_FLAPPING`] of them,
    /// ascending.
    pub(super) fences: VecDeque<Instant>,
}

impl OwnState {
    pub(super) fn new(config: &ClaimConfig, now: Instant) -> Self {
        Self {
            keys: Vec::new(),
            flags: Flags { in_preempt_delay: true, ..Flags::default() },
            failing: Failures::default(),
            owned: SharedMap::default(),
            last_hello: now,
            dirty: DirtyUnits::default(),
            decided: PendingDecisions::default(),
            generation: 0,
            sequence: 0,
            clock: 0,
            next_hello: now,
            hello_interval: HelloInterval::new(config.hello_interval),
            releases_to_repeat: BTreeMap::new(),
            listen_until: None,
            preempt_delay_until: config.failback_delay.map(|delay| now + delay),
            standby_until: None,
            list_at: None,
            lists: VecDeque::new(),
            refresh: None,
            refreshing: None,
            refreshed: None,
            leave_until: None,
            fences: VecDeque::new(),
        }
    }

    /// Returns whether this node may claim any address now.
    pub(super) fn claims(&self) -> bool {
        let is_silent =
            self.keys.is_empty() || self.listen_until.is_some() || self.standby_until.is_some();
        !(is_silent || self.flags.leaving)
    }

    /// Returns the generation of this node's claim set for a frame: 0 if this node owns no address.
    pub(super) fn stated_generation(&self) -> u32 {
        if self.owned.is_empty() { 0 } else { self.generation }
    }

    /// Raises the generation. Returns `before`, which is 0 for a claim after the empty set, and the
    /// new generation. A peer that missed the latest release therefore still receives the complete
    /// new set.
    fn next_generation(&mut self, before: u32) -> (u32, u32) {
        self.generation = self.generation.wrapping_add(1).max(1);
        (before, self.generation)
    }
}

impl ClaimMachine {
    /// Sends the whole claim set to one peer, or to the group. If the set is empty, makes a hello
    /// due at once instead.
    pub(super) fn send_list(&mut self, to: Option<Mac>, now: Instant) {
        if self.own.owned.is_empty() {
            self.own.next_hello = now;
            return;
        }
        let generation = self.own.stated_generation();
        self.own.lists.retain(|list| list.to != to);
        self.own.lists.push_back(PendingList { to, generation, part: 0, after: None });
        if self.own.lists.len() == 1 {
            self.send_list_parts(now);
        }
    }

    /// Sends parts of the pending claim lists. If this is too much for one call, the next tick
    /// continues.
    pub(super) fn send_list_parts(&mut self, now: Instant) {
        let generation = self.own.stated_generation();
        let count = self.own.owned.len().div_ceil(ADDRESSES_PER_FRAME_MAX);
        let parts = u16::try_from(count).unwrap_or(u16::MAX);
        let mut room = LIST_PARTS_PER_TURN_MAX;
        while let Some(mut list) = self.own.lists.pop_front() {
            if list.generation != generation {
                // The claim set has changed, so the parts that were sent are void.
                list = PendingList { generation, part: 0, after: None, ..list };
            }
            while list.part < parts {
                if room == 0 {
                    self.own.lists.push_front(list);
                    self.continue_soon(now);
                    return;
                }
                room -= 1;
                let rest = self.own.owned.after(list.after.as_ref());
                let addresses: Vec<_> =
                    rest.map(|(address, _)| *address).take(ADDRESSES_PER_FRAME_MAX).collect();
                list.after = addresses.last().copied().or(list.after);
                let (part, preempt_delays) = (list.part, self.preempt_delays(&addresses, now));
                let body = Body::List { generation, part, parts, addresses, preempt_delays };
                self.send(list.to, body, now);
                list.part += 1;
            }
        }
    }

    /// Executes the decisions and sends them to the peers. If a thousand addresses move at once, a
    /// few frames carry all of them.
    pub(super) fn send_decisions(&mut self, now: Instant) {
        let PendingDecisions { take, repeat_claims, hand_over, refuse, contest } =
            std::mem::take(&mut self.own.decided);
        self.own
            .releases_to_repeat
            .extend(hand_over.iter().map(|address| (*address, ReleaseReason::HandedOver)));
        self.own
            .releases_to_repeat
            .extend(refuse.iter().map(|address| (*address, ReleaseReason::NotCandidate)));
        self.release(&hand_over, ReleaseReason::HandedOver, now);
        self.release(&refuse, ReleaseReason::NotCandidate, now);
        self.release(&contest, ReleaseReason::Contested, now);
        self.repeat_claim(&repeat_claims, now);
        self.take(&take, now);
    }

    /// Takes addresses: starts to reply for them, and claims them.
    fn take(&mut self, addresses: &[IpAddr], now: Instant) {
        let new: Vec<_> = addresses
            .iter()
            .copied()
            .filter(|address| !self.own.owned.contains_key(address))
            .collect();
        for chunk in new.chunks(ADDRESSES_PER_FRAME_MAX) {
            let stated = self.own.stated_generation();
            for address in chunk {
                self.own.owned.insert(*address, now);
                self.note_owned_by_both(*address);
                self.outputs.push_back(Output::Start(*address));
                let last_frame =
                    self.unowned.remove(address).filter(|at| now.since(*at) < FAILOVER_MAX);
                self.outputs.extend(last_frame.map(|at| Output::TookOver(now.since(at))));
            }
            // From this claim on, peers expect hellos at the interval of an owner.
            self.adjust_interval();
            let (before, generation) = self.own.next_generation(stated);
            let (addresses, preempt_delays) = (chunk.to_vec(), self.preempt_delays(chunk, now));
            self.send(
                None,
                Body::Claim { previous_generation: before, generation, addresses, preempt_delays },
                now,
            );
        }
    }

    /// Repeats this node's claim of these addresses, for a peer that claims them, too.
    fn repeat_claim(&mut self, addresses: &[IpAddr], now: Instant) {
        let generation = self.own.stated_generation();
        for chunk in addresses.chunks(ADDRESSES_PER_FRAME_MAX) {
            let (addresses, preempt_delays) = (chunk.to_vec(), self.preempt_delays(chunk, now));
            self.send(
                None,
                Body::Claim {
                    previous_generation: generation,
                    generation,
                    addresses,
                    preempt_delays,
                },
                now,
            );
        }
    }

    /// Stops replying for addresses, and releases them.
    pub(super) fn release(&mut self, addresses: &[IpAddr], reason: ReleaseReason, now: Instant) {
        let owned: Vec<_> = addresses
            .iter()
            .copied()
            .filter(|address| self.own.owned.contains_key(address))
            .collect();
        for chunk in owned.chunks(ADDRESSES_PER_FRAME_MAX) {
            let (before, generation) = self.own.next_generation(self.own.generation);
            for address in chunk {
                self.own.owned.remove(address);
            }
            self.outputs.extend(chunk.iter().map(|address| Output::Stop(*address)));
            self.send(
                None,
                Body::Release {
                    previous_generation: before,
                    generation,
                    addresses: chunk.to_vec(),
                    reason,
                },
                now,
            );
        }
    }

    /// Sends recent releases a second time; returns false if there are none.
    ///
    /// A peer that claims such an address, too, must receive the release to detect that there were
    /// two owners. A peer that missed the first release cannot detect this from later hellos, if
    /// the claim set is empty again.
    pub(super) fn release_again(&mut self, now: Instant) -> bool {
        let yielded = std::mem::take(&mut self.own.releases_to_repeat);
        if self.own.standby_until.is_some() {
            return false;
        }
        let (before, generation) = (self.own.generation, self.own.generation);
        let mut sent = false;
        for reason in [ReleaseReason::HandedOver, ReleaseReason::NotCandidate] {
            let releases = yielded
                .iter()
                .filter(|(address, of)| **of == reason && !self.own.owned.contains_key(*address));
            let released: Vec<_> = releases.map(|(address, _)| *address).collect();
            for chunk in released.chunks(ADDRESSES_PER_FRAME_MAX) {
                self.send(
                    None,
                    Body::Release {
                        previous_generation: before,
                        generation,
                        addresses: chunk.to_vec(),
                        reason,
                    },
                    now,
                );
                sent = true;
            }
        }
        sent
    }

    pub(super) fn send(&mut self, to: Option<Mac>, body: Body, now: Instant) {
        let Some(key) = self.signing_key().filter(|_| self.own.standby_until.is_none()) else {
            return;
        };
        if body.is_multicast() {
            self.own.sequence = self.own.sequence.wrapping_add(1);
        }
        if matches!(body, Body::Claim { .. } | Body::Release { .. }) {
            // A claim or release has the effect of a hello, also on the answer lease. A real hello
            // right behind the claim or release could overtake it, and make it a stale frame.
            self.own.last_hello = now;
            self.own.next_hello = now + HELLO_AFTER_CLAIM;
        }
        // Clock values are unique per sender, so a receiver can order any two frames.
        self.own.clock = now.as_nanos().max(self.own.clock + 1);
        let frame = Frame {
            node: self.config.node.clone(),
            epoch: self.config.epoch,
            sequence: self.own.sequence,
            clock: self.own.clock,
            interval: self.own.hello_interval.promised,
            flags: self.own.flags,
            body,
        };
        self.outputs.push_back(Output::Send { to, key, frame });
    }
}

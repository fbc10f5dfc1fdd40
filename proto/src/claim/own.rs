//! State of this node, and the frames that it sends. Owned by the claim machine of one interface.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::evaluation::DirtyUnits;
use super::hello::HelloInterval;
use super::{ClaimConfig, ClaimMachine, Move, Output};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{ADDRESSES_PER_FRAME_MAX, Body, Claim, ClaimRank, Flags, Frame, Stretch};

/// Delay from a claim or release to the hello that follows, and from that one to the next. By these
/// hellos, peers detect that the claim or release was lost.
pub(super) const HELLO_AFTER_CLAIM: Duration = Duration::from_millis(25);
/// Maximum number of stretches of a list that one call of the machine sends.
const STRETCHES_PER_TURN_MAX: usize = 32;

/// Decisions that are not yet executed and sent to the peers, as lists of addresses.
#[derive(Debug, Default)]
pub(super) struct PendingDecisions {
    /// Addresses to take, with the ranks to state.
    pub(super) take: Vec<(IpAddr, ClaimRank)>,
    /// Moves that the other decisions cause.
    pub(super) moves: Vec<Move>,
    /// Owned addresses to claim again, because their rank has changed or a peer claims them, too.
    pub(super) restate: Vec<(IpAddr, ClaimRank)>,
    pub(super) hand_over: Vec<IpAddr>,
    /// Addresses to release because a foreign host uses them.
    pub(super) contest: Vec<IpAddr>,
    /// Addresses that their owner, the peer with this name, may not announce in this node's view.
    pub(super) doubts: BTreeMap<String, Vec<IpAddr>>,
}

#[derive(Debug)]
pub(super) struct OwnState {
    /// IDs of the keys with which this node can verify frames, newest first. Without a key, this
    /// node neither sends nor claims.
    pub(super) keys: Vec<u32>,
    pub(super) flags: Flags,
    pub(super) last_hello: Instant,
    /// Time of this node's latest claim or release.
    pub(super) last_claim: Instant,
    /// Units whose ownership may have to change.
    pub(super) dirty: DirtyUnits,
    /// Decisions that follow from one input; [`ClaimMachine::send_decisions`] sends them in as few
    /// frames as possible.
    pub(super) decided: PendingDecisions,
    /// Clock value of the latest frame that this node sent, in nanoseconds.
    pub(super) clock: u64,
    pub(super) next_hello: Instant,
    pub(super) hello_interval: HelloInterval,
    /// End of the current listen phase; `None` outside of one.
    pub(super) listen_until: Option<Instant>,
    /// End of this node's preempt delay; `None` after the end, or if the delay never ends.
    pub(super) preempt_delay_until: Option<Instant>,
    /// End of the standby period of this interface; `None` if no other interface of this node is
    /// active on the segment.
    pub(super) standby_until: Option<Instant>,
    /// Time at which all owned addresses must be announced again, and whether the full series of
    /// announcements is sent.
    pub(super) refresh: Option<(Instant, bool)>,
    /// Repeated announcement of all owned addresses that is in progress: the last announced
    /// address, if any, and whether the full series of announcements is sent.
    pub(super) refreshing: Option<(Option<IpAddr>, bool)>,
    /// Time of the latest repeated announcement of all owned addresses, and the minimum time from
    /// it to the next one.
    pub(super) refreshed: Option<(Instant, Duration)>,
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
            last_hello: now,
            last_claim: now,
            dirty: DirtyUnits::default(),
            decided: PendingDecisions::default(),
            clock: 0,
            next_hello: now,
            hello_interval: HelloInterval::new(config.hello_interval),
            listen_until: None,
            preempt_delay_until: config.failback_delay.map(|delay| now + delay),
            standby_until: None,
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
}

impl ClaimMachine {
    /// Sends the rest of the current list. If this is too much for one call, the next tick
    /// continues.
    pub(super) fn continue_list(&mut self, now: Instant) {
        for _ in 0..STRETCHES_PER_TURN_MAX {
            if !self.sets.own().has_list() {
                return;
            }
            self.send_stretch(now);
        }
        self.continue_soon(now);
    }

    /// Sends the next stretch of the claim set.
    pub(super) fn send_stretch(&mut self, now: Instant) {
        let (after, last, addresses) = self.sets.own_mut().next_stretch(now);
        let claims = self.claims_of(addresses, now);
        self.send(None, Body::List(Stretch { after, last, claims }), now);
    }

    /// Returns the claims of owned addresses.
    fn claims_of(&self, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) -> Vec<Claim> {
        let claim = |address: IpAddr| {
            let rank = self.owned().get(&address)?.rank;
            Some(Claim { address, rank, preempt_delay: self.preempt_delay(address, now) })
        };
        addresses.into_iter().filter_map(claim).collect()
    }

    /// Executes the decisions and sends them to the peers. If a thousand addresses move at once, a
    /// few frames carry all of them.
    pub(super) fn send_decisions(&mut self, now: Instant) {
        let PendingDecisions { mut take, moves, mut restate, hand_over, contest, doubts } =
            std::mem::take(&mut self.own.decided);
        self.release(&hand_over, false, now);
        self.release(&contest, true, now);
        restate.retain(|(address, _)| self.owned().contains_key(address));
        self.claim(&restate, now);
        take.retain(|(address, _)| !self.owned().contains_key(address));
        for (address, _) in &take {
            self.unowned.remove(address);
            self.outputs.push_back(Output::Start(*address));
        }
        self.claim(&take, now);
        self.outputs.extend(moves.into_iter().map(Output::Moved));
        for (owner, addresses) in doubts {
            let Some(mac) = self.peers.get(&*owner).map(|peer| peer.mac) else { continue };
            for chunk in addresses.chunks(ADDRESSES_PER_FRAME_MAX) {
                self.send(Some(mac), Body::Doubt(chunk.to_vec()), now);
            }
        }
    }

    /// Claims addresses, or states new ranks for owned ones.
    fn claim(&mut self, claims: &[(IpAddr, ClaimRank)], now: Instant) {
        for chunk in claims.chunks(ADDRESSES_PER_FRAME_MAX) {
            self.sets.claim(chunk, now);
            // From this claim on, peers expect hellos at the interval of an owner.
            self.adjust_interval();
            let addresses = chunk.iter().map(|(address, _)| *address);
            self.send(None, Body::Claim(self.claims_of(addresses, now)), now);
        }
    }

    /// Stops replying for addresses, and releases them. `contested` is true if a foreign host uses
    /// them.
    pub(super) fn release(&mut self, addresses: &[IpAddr], contested: bool, now: Instant) {
        let mut owned: Vec<_> = addresses
            .iter()
            .copied()
            .filter(|address| self.owned().contains_key(address))
            .collect();
        // Two conflicts may name the same address.
        owned.sort_unstable();
        owned.dedup();
        for chunk in owned.chunks(ADDRESSES_PER_FRAME_MAX) {
            self.sets.release(chunk);
            self.outputs.extend(chunk.iter().map(|address| Output::Stop(*address)));
            self.send(None, Body::Release { addresses: chunk.to_vec(), contested }, now);
        }
    }

    /// Releases all owned addresses.
    pub(super) fn release_all(&mut self, now: Instant) {
        let all: Vec<_> = self.owned().keys().copied().collect();
        self.release(&all, false, now);
    }

    pub(super) fn send(&mut self, to: Option<Mac>, body: Body, now: Instant) {
        let is_change = matches!(body, Body::Claim(_) | Body::Release { .. });
        let Some((key, frame)) = self.frame(body, now) else { return };
        if is_change {
            // A claim or release has the effect of a hello, also on the answer lease. A real hello
            // right behind the claim or release could overtake it, and make it a stale frame.
            self.own.last_hello = now;
            self.own.last_claim = now;
            self.own.next_hello = now + HELLO_AFTER_CLAIM;
        }
        self.send_copies(to, key, &frame, now);
        self.outputs.push_back(Output::Send { to, key, frame });
    }

    /// Returns a frame of this node and its signing key; `None` if this node must not send.
    pub(super) fn frame(&mut self, body: Body, now: Instant) -> Option<(u32, Frame)> {
        let key = self.signing_key().filter(|_| self.own.standby_until.is_none())?;
        // Clock values are unique per sender, so a receiver can order any two frames.
        self.own.clock = now.as_nanos().max(self.own.clock + 1);
        let frame = Frame {
            node: (*self.config.node).into(),
            epoch: self.config.epoch,
            clock: self.own.clock,
            claim_set: self.sets.own().summary(),
            interval: self.own.hello_interval.promised,
            flags: self.own.flags,
            body,
        };
        Some((key, frame))
    }
}

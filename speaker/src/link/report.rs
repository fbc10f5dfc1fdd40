//! Reports of an interface's thread to the main loop, and updates of its metrics. Owned by the
//! thread, which reports only after it has sent the replies that are due.

use std::collections::VecDeque;
use std::sync::Arc;

use ferrolb_speaker_core::claim::{AddressConflict, ClaimCounters, ClaimMachine, Move};
use ferrolb_speaker_core::event::{LinkReport, MOVES_MAX};
use tokio::sync::watch;

use super::ThreadState;
use crate::metrics::{DropReason, LinkMetrics};

/// Sender of a thread's reports, with the thread's metrics and the counter values that were already
/// added to them.
#[derive(Debug)]
pub(super) struct LinkReporter<'a> {
    thread_state: &'a watch::Sender<ThreadState>,
    metrics: LinkMetrics,
    previous_counts: ClaimCounters,
    /// See [`LinkReport::moves`].
    moves: VecDeque<Move>,
    move_count: u64,
}

impl<'a> LinkReporter<'a> {
    pub(super) fn new(thread_state: &'a watch::Sender<ThreadState>, metrics: LinkMetrics) -> Self {
        Self {
            thread_state,
            metrics,
            previous_counts: ClaimCounters::default(),
            moves: VecDeque::new(),
            move_count: 0,
        }
    }

    /// Adds a move to the next report. The metrics count the moves to this node, so that the sum
    /// over all nodes counts each move once.
    pub(super) fn add_move(&mut self, moved: Move, node: &str) {
        if *moved.to == *node {
            self.metrics.moves(moved.cause).inc();
        }
        if let Some(silence) = moved.silence {
            self.metrics.failover.observe(silence.as_secs_f64());
        }
        self.move_count += 1;
        if self.moves.len() == MOVES_MAX {
            self.moves.pop_front();
        }
        self.moves.push_back(moved);
    }

    /// Adds to the metrics the increase of the claim machine's counters since the previous call.
    pub(super) fn count(&mut self, claims: &ClaimMachine) {
        let (now, before, metrics) = (claims.counts(), self.previous_counts, &self.metrics);
        metrics.suspicions.inc_by(now.suspicions - before.suspicions);
        metrics.unheard.inc_by(now.unheard - before.unheard);
        metrics.refuted_suspicions.inc_by(now.refuted - before.refuted);
        metrics.node_failures.inc_by(now.peer_failures - before.peer_failures);
        metrics.stale_proxies.inc_by(now.proxied_failures - before.proxied_failures);
        metrics.stalls.inc_by(now.fences - before.fences);
        metrics.isolations.inc_by(now.isolations - before.isolations);
        metrics.conflicts.inc_by(now.conflicts - before.conflicts);
        metrics.foreign_frames.inc_by(now.foreign_hosts - before.foreign_hosts);
        metrics.foreign_kernel_frames.inc_by(now.kernel_replies - before.kernel_replies);
        metrics.dropped(DropReason::Stale).inc_by(now.stale_frames - before.stale_frames);
        metrics
            .dropped(DropReason::ChallengePending)
            .inc_by(now.unchallenged - before.unchallenged);
        metrics.dropped(DropReason::OwnName).inc_by(now.own_name_frames - before.own_name_frames);
        metrics.dropped(DropReason::TableFull).inc_by(now.over_limit - before.over_limit);
        self.previous_counts = now;
    }

    /// Publishes a report of the interface's state if it differs from the previous report.
    pub(super) fn report(&mut self, claims: &ClaimMachine, handed_over: bool) {
        self.thread_state.send_if_modified(|thread_state| {
            let Ok(before) = thread_state else { return false };
            let (isolated, standby, late_hellos, proxy_healthy_elsewhere) = (
                claims.members().own().is_isolated(),
                claims.members().own().is_standby(),
                claims.members().own().late_hellos(),
                claims.members().peers().any_health_checked(),
            );
            let same = (
                before.handed_over,
                before.isolated,
                before.standby,
                before.late_hellos,
                before.proxy_healthy_elsewhere,
            ) == (handed_over, isolated, standby, late_hellos, proxy_healthy_elsewhere)
                && before.speakers.iter().map(|name| &**name).eq(claims.members().peers().live())
                && before.unheard.iter().map(|name| &**name).eq(claims.members().peers().unheard())
                && before.owned == *claims.owned()
                && before.move_count == self.move_count
                && before.conflicts.iter().cloned().eq(claims.conflicts());
            if same {
                return false;
            }
            let speakers: Vec<Box<str>> = claims.members().peers().live().map(Into::into).collect();
            let unheard: Vec<Box<str>> =
                claims.members().peers().unheard().map(Into::into).collect();
            let owned = claims.owned().clone();
            let conflicts: Arc<[AddressConflict]> = claims.conflicts().collect();
            self.metrics.speakers.set(i64::try_from(speakers.len()).unwrap_or(i64::MAX));
            self.metrics.unheard_peers.set(i64::try_from(unheard.len()).unwrap_or(i64::MAX));
            self.metrics.owned.set(i64::try_from(owned.len()).unwrap_or(i64::MAX));
            self.metrics.standby.set(standby.into());
            let late = late_hellos.map_or(0.0, |late| late.by.as_secs_f64());
            self.metrics.late_hellos.set(late);
            *thread_state = Ok(LinkReport {
                speakers,
                unheard,
                owned,
                moves: self.moves.clone(),
                move_count: self.move_count,
                handed_over,
                isolated,
                standby,
                late_hellos,
                proxy_healthy_elsewhere,
                conflicts,
            });
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use ferrolb_core::Machine;
    use ferrolb_proto::Instant;
    use ferrolb_speaker_core::claim::{ClaimConfig, Input, MoveCause};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::Metrics;

    fn address(n: usize) -> IpAddr {
        IpAddr::from([172, 30, 0, n as u8])
    }

    fn moved(n: usize, to: &str, cause: MoveCause) -> Move {
        Move { address: address(n), from: None, to: to.into(), cause, silence: None }
    }

    fn machine() -> ClaimMachine {
        let config = ClaimConfig {
            node: "node1".into(),
            epoch: 1,
            hello_interval: Duration::from_millis(50),
            hello_misses: 3,
            detection_time_max: Duration::from_secs(2),
            failback_delay: None,
        };
        ClaimMachine::new(config, Instant::ZERO)
    }

    #[test]
    fn late_hellos_are_reported() {
        let mut claims = machine();
        claims.handle(Input::Keys(vec![1]), Instant::ZERO);
        let due = claims.deadline().expect("the first hello is due");
        let (state, reports) = watch::channel(Ok(LinkReport::default()));
        let metrics = Metrics::new(&mut Registry::default()).link("eth0");
        let mut reporter = LinkReporter::new(&state, metrics.clone());
        let mut report = |claims: &ClaimMachine| {
            reporter.report(claims, false);
            let late = reports.borrow().as_ref().expect("a report").late_hellos;
            (late.map(|late| late.by.as_secs_f64()), metrics.late_hellos.get())
        };
        assert_eq!(report(&claims), (None, 0.0));
        claims.tick(due + Duration::from_millis(850));
        assert_eq!(report(&claims), (Some(0.85), 0.85));
    }

    #[test]
    fn moves_to_this_node_are_counted_and_the_latest_ones_reported() {
        let claims = machine();
        let (state, reports) = watch::channel(Ok(LinkReport::default()));
        let metrics = Metrics::new(&mut Registry::default()).link("eth0");
        let mut reporter = LinkReporter::new(&state, metrics.clone());
        let report = |reporter: &mut LinkReporter<'_>, moves: &[Move]| {
            let before = reports.borrow().as_ref().expect("a report").clone();
            moves.iter().for_each(|moved| reporter.add_move(moved.clone(), "node1"));
            reporter.report(&claims, false);
            let after = reports.borrow().as_ref().expect("a report").clone();
            let (moves, further) = after.moves_since(&before);
            (moves.map(|moved| moved.address).collect::<Vec<_>>(), further)
        };
        let two = [moved(1, "node1", MoveCause::Draining), moved(2, "node2", MoveCause::Draining)];
        assert_eq!(report(&mut reporter, &two), (vec![address(1), address(2)], 0));
        assert_eq!(report(&mut reporter, &[]), (vec![], 0));
        let many: Vec<_> =
            (0..MOVES_MAX + 3).map(|n| moved(n, "node1", MoveCause::NodeFailed)).collect();
        let latest = (3..MOVES_MAX + 3).map(address).collect();
        assert_eq!(report(&mut reporter, &many), (latest, 3));
        let counts = [MoveCause::Draining, MoveCause::NodeFailed].map(|it| metrics.moves(it).get());
        assert_eq!(counts, [1, MOVES_MAX as u64 + 3], "the move to node2 is counted there");
        let restarted = LinkReport { move_count: 100, ..LinkReport::default() };
        let after = reports.borrow().as_ref().expect("a report").clone();
        assert_eq!(after.moves_since(&restarted).0.count(), MOVES_MAX, "the thread has restarted");
    }
}

//! Client's view of an outage: a new connection in every interval, independent of earlier ones, and
//! the longest time without a successful reply.

use super::{datagram, page};
use crate::wait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// Maximum time of a connection from its first packet to the page. The kernel retransmits after one
/// second; with a shorter maximum, the result depends on the network alone.
const REPLY_MAX: Duration = Duration::from_millis(900);
/// Maximum age of a connection that a move can reset, because only the old owner has its NAT state.
/// A connection takes 1 to 5 ms of an interval of 10 ms, so a move resets a connection with a
/// probability of 10 % to 50 %. Some connections take longer while pods start.
const IN_PROGRESS_MAX: Duration = Duration::from_millis(200);
/// Length of a column of the timeline, in milliseconds.
const COLUMN_MS: u64 = 100;

/// Transport of the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A page over a new TCP connection.
    Tcp,
    /// A UDP request from a new port.
    Udp,
}

/// Result of a probe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Length of the probe, in milliseconds.
    pub length_ms: f64,
    /// Numbers of started, of successful, and of failed connections.
    pub sent: usize,
    pub ok: usize,
    pub lost: usize,
    /// Longest time without a successful reply; the probe's own start and end count as bounds.
    pub longest_gap_ms: f64,
    /// Time from the probe's start to the start of the longest gap, in milliseconds.
    pub gap_began_ms: f64,
    /// Start times of the failed connections.
    #[serde(skip)]
    pub losses: Vec<Instant>,
    /// Number of successful replies of each pod.
    pub pods: BTreeMap<String, usize>,
    /// Numbers of connections that started in each 100 ms, and of the successful ones among them.
    pub timeline: Vec<(usize, usize)>,
}

impl ProbeReport {
    /// Returns the number of lost connections that were not in progress when the address moved.
    pub fn losses_without_move(&self, moves: &[Instant]) -> usize {
        let in_progress = |began: &Instant| {
            moves.iter().any(|moved| {
                moved.checked_duration_since(*began).is_some_and(|age| age <= IN_PROGRESS_MAX)
            })
        };
        self.losses.iter().filter(|began| !in_progress(began)).count()
    }
}

/// One connection: its start, and the time and pod of its successful reply. Times count from the
/// probe's start.
struct ProbeAttempt {
    began: Duration,
    reply: Option<(Duration, String)>,
}

/// Probes `server` once every `step`, for `length` or until `stop` is set.
pub async fn probe(
    transport: Transport,
    server: SocketAddr,
    length: Duration,
    step: Duration,
    stop: &AtomicBool,
) -> ProbeReport {
    let start = wait::now();
    let (mut attempts, mut in_progress, mut ticks) =
        (Vec::new(), JoinSet::new(), tokio::time::interval(step));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while start.elapsed() < length && !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        in_progress.spawn(attempt(transport, server, start));
        while let Some(done) = in_progress.try_join_next() {
            attempts.extend(done);
        }
    }
    let end = start.elapsed();
    while let Some(done) = in_progress.join_next().await {
        attempts.extend(done);
    }
    report(start, &attempts, end)
}

async fn attempt(transport: Transport, server: SocketAddr, start: Instant) -> ProbeAttempt {
    let began = start.elapsed();
    let pod = match transport {
        Transport::Tcp => page::fetch(server, "/", REPLY_MAX).await.ok().and_then(page::Page::pod),
        Transport::Udp => datagram::request(server, REPLY_MAX).await.ok(),
    };
    ProbeAttempt { began, reply: pod.map(|pod| (start.elapsed(), pod)) }
}

fn report(start: Instant, attempts: &[ProbeAttempt], end: Duration) -> ProbeReport {
    let length_ms = end.as_secs_f64() * 1000.0;
    let mut report = ProbeReport { length_ms, sent: attempts.len(), ..ProbeReport::default() };
    let mut reply_times: Vec<Duration> = Vec::new();
    for attempt in attempts {
        let column =
            usize::try_from(attempt.began.as_millis() as u64 / COLUMN_MS).unwrap_or(usize::MAX);
        if report.timeline.len() <= column {
            report.timeline.resize(column + 1, (0, 0));
        }
        report.timeline[column].0 += 1;
        match &attempt.reply {
            Some((when, pod)) => {
                report.timeline[column].1 += 1;
                *report.pods.entry(pod.clone()).or_default() += 1;
                reply_times.push(*when);
            }
            None => report.losses.push(start + attempt.began),
        }
    }
    report.ok = reply_times.len();
    report.lost = report.losses.len();
    reply_times.sort();
    let mut before = Duration::ZERO;
    for when in reply_times.into_iter().chain([end]) {
        // A reply may arrive after the end; then the end is not a bound.
        let gap = when.saturating_sub(before).as_secs_f64() * 1000.0;
        if gap > report.longest_gap_ms {
            (report.longest_gap_ms, report.gap_began_ms) = (gap, before.as_secs_f64() * 1000.0);
        }
        before = before.max(when);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(list: &[(u64, Option<u64>)]) -> Vec<ProbeAttempt> {
        let ms = Duration::from_millis;
        list.iter()
            .map(|(began, replied)| ProbeAttempt {
                began: ms(*began),
                reply: replied.map(|when| (ms(when), "web".to_owned())),
            })
            .collect()
    }

    #[test]
    fn the_longest_gap_is_between_replies_or_bounds() {
        for (case, list, gap, began) in [
            (
                "in the middle",
                &[(0, Some(1)), (10, None), (20, Some(260)), (260, Some(261))][..],
                259.0,
                1.0,
            ),
            ("no reply after the first", &[(0, Some(1)), (100, None), (200, None)], 299.0, 1.0),
            ("no reply at all", &[(0, None)], 300.0, 0.0),
            ("replies out of order", &[(0, Some(200)), (10, Some(11))], 189.0, 11.0),
        ] {
            let report = report(wait::now(), &attempts(list), Duration::from_millis(300));
            assert_eq!((report.longest_gap_ms, report.gap_began_ms), (gap, began), "{case}");
        }
    }

    #[test]
    fn every_connection_is_counted_once() {
        let start = wait::now();
        let list = attempts(&[(0, Some(1)), (99, None), (100, Some(101)), (350, Some(351))]);
        let report = report(start, &list, Duration::from_millis(400));
        assert_eq!(report.losses, [start + Duration::from_millis(99)]);
        assert_eq!((report.sent, report.ok, report.lost, report.length_ms), (4, 3, 1, 400.0));
        assert_eq!(report.timeline, [(2, 1), (1, 1), (0, 0), (1, 1)]);
        assert_eq!(report.pods, BTreeMap::from([("web".to_owned(), 3)]));
    }

    #[test]
    fn losses_shortly_before_a_move_are_explained() {
        let (moved, ms) = (wait::now() + Duration::from_secs(10), Duration::from_millis);
        let unexplained = |losses: &[Instant], moves: &[Instant]| {
            let losses = losses.to_vec();
            ProbeReport { losses, ..ProbeReport::default() }.losses_without_move(moves)
        };
        for (began, expect) in [
            (moved - ms(201), 1),
            (moved - ms(200), 0),
            (moved, 0),
            (moved + ms(1), 1),
            (moved + ms(4_900), 0),
        ] {
            assert_eq!(unexplained(&[began], &[moved, moved + ms(5_000)]), expect, "{began:?}");
        }
        assert_eq!(unexplained(&[moved], &[]), 1);
        assert_eq!(unexplained(&[], &[moved]), 0);
    }
}

//! Driver that reads when kube-proxy has updated its rules, while this node waits to announce a new
//! address. The driver is one task, owned by the main loop's `JoinSet`. Cancelling the task is
//! safe.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::range::Family;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::plan::ProxyTargets;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::http::get;
use super::proxy::{BODY_MAX, responses};

/// Interval of the requests to kube-proxy while a new address waits, which takes 1.5 s at most.
/// kube-proxy offers no notification.
const INTERVAL: Duration = Duration::from_millis(100);
/// Timeout of one request.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Sends an event for each update of kube-proxy's rules that ends while an address waits. Ends when
/// the sender of `targets` is dropped.
pub async fn run(mut targets: watch::Receiver<ProxyTargets>, events: mpsc::Sender<Event>) {
    let mut latest = [None; 2];
    loop {
        let awaited = targets.wait_for(|it| it.waits_for_rules && !it.servers.is_empty()).await;
        let Ok(servers) = awaited.map(|targets| targets.servers.clone()) else { return };
        let due = Clock::now() + INTERVAL;
        for server in servers {
            let Ok(response) = get(server, "/livez", Some(BODY_MAX), TIMEOUT).await else {
                continue;
            };
            let now = (Clock::now(), Timestamp::now());
            for (family, ended) in responses::rule_updates(&response) {
                let latest = &mut latest[usize::from(family == Family::V6)];
                if latest.replace(ended) != Some(ended) {
                    let end = monotonic(ended, now);
                    // The receiver is gone only when the process ends.
                    let _ = events.send(Event::RuleUpdate { family, end }).await;
                }
            }
            break;
        }
        Clock::sleep_until(Some(due)).await;
    }
}

/// Converts a time of the wall clock in the past. `now` is the present time of both clocks.
fn monotonic(time: Timestamp, (now, wall): (Instant, Timestamp)) -> Instant {
    let age = wall.duration_since(time).unsigned_abs();
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    Instant::from_nanos(now.as_nanos().saturating_sub(age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_wall_clock_becomes_a_monotonic_time() {
        let wall = Timestamp::from_millisecond(1_000_000).unwrap();
        let now = (Instant::from_millis(5_000), wall);
        let at = |millis| monotonic(Timestamp::from_millisecond(millis).unwrap(), now);
        assert_eq!(at(999_700), Instant::from_millis(4_700));
        assert_eq!(at(1_000_000), Instant::from_millis(5_000));
        assert_eq!(at(0), Instant::ZERO, "before the start of the process");
    }
}

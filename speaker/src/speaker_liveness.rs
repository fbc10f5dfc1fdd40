//! Liveness checks of other nodes' speakers while this node drains. This node withdraws a route
//! only if the running speaker of another node advertises the same prefix. The task therefore
//! checks the speakers with which this node exchanges no hellos. The main loop's `JoinSet` owns the
//! task; cancelling the task closes its sockets. The task owns the results, and reports the nodes
//! whose speakers replied recently.
//!
//! The request goes to a path of the speaker's admin listener. The kubelet of that node uses the
//! same path as gobgpd's liveness probe: while the path returns 200, the kubelet does not restart
//! gobgpd, and the node's routes remain.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use ferrolb_proto::bgp::{LivenessReplies, UnverifiedSpeakers};
use ferrolb_runtime::clock::Clock;
use futures::StreamExt;
use futures::stream::{self, FusedStream};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::event::Event;
use crate::health::http::get;

/// Interval between the starts of two rounds. A round checks every unverified speaker once, and if
/// it takes longer than the interval, the next round starts at its end. A response is valid for
/// more than two intervals, so one lost response does no harm.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Timeout of a request to one address.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of speakers that are checked concurrently. If this many speakers do not reply, a
/// round still takes no longer than [`CHECK_INTERVAL`].
const CONCURRENT_CHECKS_MAX: usize = 64;
/// Path of the request. A running speaker replies with the status code [`ALIVE_STATUS`].
const PATH: &str = crate::bgp::driver::HEALTHZ_PATH;
const ALIVE_STATUS: u16 = 200;

/// Checks the speakers in `unverified` on `port` until the sender of `unverified` is dropped.
/// `failed_checks` counts the failed checks.
pub async fn run(
    port: u16,
    mut unverified: watch::Receiver<UnverifiedSpeakers>,
    events: mpsc::Sender<Event>,
    failed_checks: Counter,
) {
    let (mut replies, mut reported) = (LivenessReplies::default(), BTreeSet::new());
    let (mut round, mut round_started_at) =
        (pin!(check_all(UnverifiedSpeakers::new(), port)), None);
    loop {
        let idle = round.is_terminated() && !unverified.borrow().is_empty();
        let due = idle.then(|| {
            round_started_at
                .map_or_else(Clock::now, |round_started_at| round_started_at + CHECK_INTERVAL)
        });
        tokio::select! {
            response = round.next(), if !round.is_terminated() => {
                match response {
                    Some(Ok(node)) => replies.record(node, Clock::now()),
                    Some(Err(())) => drop(failed_checks.inc()),
                    None => {}
                }
                // Reports once per round and not after each response, because each report costs a
                // new plan.
                if !round.is_terminated() {
                    continue;
                }
            }
            () = Clock::sleep_until(due) => {
                round_started_at = Some(Clock::now());
                round.set(check_all(unverified.borrow().clone(), port));
                continue;
            }
            () = Clock::sleep_until(replies.deadline()) => {}
            changed = unverified.changed() => {
                if changed.is_err() {
                    return;
                }
                if unverified.borrow().is_empty() {
                    round.set(check_all(UnverifiedSpeakers::new(), port));
                }
            }
        }
        let live_nodes = replies.recent(&unverified.borrow(), Clock::now());
        if live_nodes != reported {
            reported.clone_from(&live_nodes);
            if events.send(Event::LiveSpeakers(live_nodes)).await.is_err() {
                return;
            }
        }
    }
}

/// Runs one round of checks: checks each speaker in `unverified` once. The stream yields the node
/// of each running speaker as soon as the speaker replies, and an error for each other speaker.
fn check_all(
    unverified: UnverifiedSpeakers,
    port: u16,
) -> impl FusedStream<Item = Result<Box<str>, ()>> {
    let check = move |(node, addresses): (Box<str>, Box<[IpAddr]>)| async move {
        for address in addresses {
            let server = SocketAddr::new(address, port);
            match get(server, PATH, None, CHECK_TIMEOUT).await {
                Ok(response) if response.status == ALIVE_STATUS => return Ok(node),
                Ok(response) => {
                    debug!(%node, %server, status = response.status, "speaker without a heartbeat")
                }
                Err(error) => debug!(%node, %server, %error, "speaker does not respond"),
            }
        }
        Err(())
    };
    stream::iter(unverified).map(check).buffer_unordered(CONCURRENT_CHECKS_MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Maximum time that the test waits for an event, long enough for a busy host.
    const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

    /// Responds with `status` to requests for the liveness path.
    async fn serve(listener: TcpListener, status: &str) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            let is_liveness_check =
                request[..length].starts_with(b"GET /gobgp/healthz HTTP/1.1\r\n");
            let status = if is_liveness_check { status } else { "404 Not Found" };
            let page = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(page.as_bytes()).await.unwrap();
        }
    }

    /// Returns a listener on each address, and the port of both. The port is free on the first
    /// address only, so another process may use it on the second one.
    async fn servers_on_one_port(addresses: [IpAddr; 2]) -> (TcpListener, TcpListener, u16) {
        loop {
            let first = TcpListener::bind((addresses[0], 0)).await.unwrap();
            let port = first.local_addr().unwrap().port();
            if let Ok(second) = TcpListener::bind((addresses[1], port)).await {
                return (first, second, port);
            }
        }
    }

    #[tokio::test]
    async fn live_speakers_are_reported_while_they_are_unverified() {
        let at = |last: u8| IpAddr::from([127, 0, 0, last]);
        let (alive, stalled, port) = servers_on_one_port([at(1), at(2)]).await;
        let ((wanted, unverified), (events, mut received_events)) =
            (watch::channel(UnverifiedSpeakers::new()), mpsc::channel(1));
        let failed_checks = Counter::default();
        let checks = run(port, unverified, events, failed_checks.clone());
        let test = async {
            let unused_address = at(3);
            wanted.send_replace(UnverifiedSpeakers::from([
                ("refused".into(), [unused_address].into()),
                ("second".into(), [unused_address, at(1)].into()),
                ("stuck".into(), [at(2)].into()),
            ]));
            let live_speakers = |event| match event {
                Some(Event::LiveSpeakers(nodes)) => {
                    nodes.into_iter().map(String::from).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(
                (live_speakers(received_events.recv().await), failed_checks.get()),
                (vec!["second".to_owned()], 2)
            );
            wanted.send_replace(UnverifiedSpeakers::new());
            assert_eq!(live_speakers(received_events.recv().await), Vec::<String>::new());
            drop(wanted);
        };
        let (alive, stalled) = (serve(alive, "200 OK"), serve(stalled, "503 Service Unavailable"));
        let all = async {
            tokio::select! {
                _ = futures::future::join(checks, test) => {}
                () = alive => {}
                () = stalled => {}
            }
        };
        tokio::time::timeout(EVENT_TIMEOUT, all).await.expect("the test ends before the timeout");
    }
}

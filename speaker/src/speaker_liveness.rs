//! Liveness checks of other nodes' speakers while this node drains. This node withdraws a route
//! only if the running speaker of another node advertises the same prefix. The task therefore
//! checks the speakers with which this node exchanges no hellos. The main loop's `JoinSet` owns the
//! task; cancelling the task closes its sockets. The task owns the results, and reports the nodes
//! whose speakers replied recently.
//!
//! The request goes to a path of the speaker's admin listener. The kubelet of that node uses the
//! same path as gobgpd's liveness probe: while it returns 200, the kubelet does not restart gobgpd,
//! and the node's routes remain.

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

/// Interval between two rounds of requests, or the duration of a round if that is longer. A
/// response is valid for more than two intervals, so one lost response does no harm.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Timeout of a request to one address.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum number of speakers that are checked concurrently. If this many speakers do not reply, a
/// round still takes no longer than [`CHECK_INTERVAL`].
const CONCURRENT_CHECKS_MAX: usize = 64;
/// Path of the request. A running speaker replies with the status code [`ALIVE_STATUS`].
const PATH: &str = crate::bgp::driver::HEALTHZ;
const ALIVE_STATUS: u16 = 200;

/// Checks the speakers in `doubted` on `port` until the sender of `doubted` is dropped.
/// `unanswered` counts the failed checks.
pub async fn run(
    port: u16,
    mut doubted: watch::Receiver<UnverifiedSpeakers>,
    events: mpsc::Sender<Event>,
    unanswered: Counter,
) {
    let (mut answers, mut said) = (LivenessReplies::default(), BTreeSet::new());
    let (mut round, mut begun) = (pin!(check_all(UnverifiedSpeakers::new(), port)), None);
    loop {
        let idle = round.is_terminated() && !doubted.borrow().is_empty();
        let due = idle.then(|| begun.map_or_else(Clock::now, |begun| begun + CHECK_INTERVAL));
        tokio::select! {
            answer = round.next(), if !round.is_terminated() => {
                match answer {
                    Some(Ok(node)) => answers.record(node, Clock::now()),
                    Some(Err(())) => drop(unanswered.inc()),
                    None => {}
                }
                // Reports once per round and not after each response, because each report costs a
                // new plan.
                if !round.is_terminated() {
                    continue;
                }
            }
            () = Clock::sleep_until(due) => {
                begun = Some(Clock::now());
                round.set(check_all(doubted.borrow().clone(), port));
                continue;
            }
            () = Clock::sleep_until(answers.deadline()) => {}
            changed = doubted.changed() => {
                if changed.is_err() {
                    return;
                }
                if doubted.borrow().is_empty() {
                    round.set(check_all(UnverifiedSpeakers::new(), port));
                }
            }
        }
        let lately = answers.recent(&doubted.borrow(), Clock::now());
        if lately != said {
            said.clone_from(&lately);
            if events.send(Event::LiveSpeakers(lately)).await.is_err() {
                return;
            }
        }
    }
}

/// Runs one round of checks. The stream yields the node of each running speaker as soon as the
/// speaker replies, and an error for each other speaker.
fn check_all(
    doubted: UnverifiedSpeakers,
    port: u16,
) -> impl FusedStream<Item = Result<Box<str>, ()>> {
    let one = move |(node, addresses): (Box<str>, Box<[IpAddr]>)| async move {
        for address in addresses {
            let server = SocketAddr::new(address, port);
            match get(server, PATH, None, CHECK_TIMEOUT).await {
                Ok(answer) if answer.status == ALIVE_STATUS => return Ok(node),
                Ok(answer) => {
                    debug!(%node, %server, status = answer.status, "speaker without a heartbeat")
                }
                Err(error) => debug!(%node, %server, %error, "speaker does not respond"),
            }
        }
        Err(())
    };
    stream::iter(doubted).map(one).buffer_unordered(CONCURRENT_CHECKS_MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Timeout of an expected event on a busy machine.
    const EVENT_TIMEOUT: Duration = Duration::from_secs(30);

    /// Responds with `status` to requests for the liveness path.
    async fn serve(listener: TcpListener, status: &str) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            let asked = request[..length].starts_with(b"GET /gobgp/healthz HTTP/1.1\r\n");
            let status = if asked { status } else { "404 Not Found" };
            let page = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(page.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_answers_that_it_lives_is_told_and_forgotten_when_nobody_asks_any_more() {
        let at = |last: u8| IpAddr::from([127, 0, 0, last]);
        let lives = TcpListener::bind((at(1), 0)).await.unwrap();
        let port = lives.local_addr().unwrap().port();
        let stuck = TcpListener::bind((at(2), port)).await.unwrap();
        let ((wanted, doubted), (events, mut told)) =
            (watch::channel(UnverifiedSpeakers::new()), mpsc::channel(1));
        let unanswered = Counter::default();
        let asks = run(port, doubted, events, unanswered.clone());
        let tells = async {
            let nobody = at(3);
            wanted.send_replace(UnverifiedSpeakers::from([
                ("refused".into(), [nobody].into()),
                ("second".into(), [nobody, at(1)].into()),
                ("stuck".into(), [at(2)].into()),
            ]));
            let answered = |event| match event {
                Some(Event::LiveSpeakers(nodes)) => {
                    nodes.into_iter().map(String::from).collect::<Vec<_>>()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(
                (answered(told.recv().await), unanswered.get()),
                (vec!["second".to_owned()], 2)
            );
            wanted.send_replace(UnverifiedSpeakers::new());
            assert_eq!(answered(told.recv().await), Vec::<String>::new());
            drop(wanted);
        };
        let (lives, stuck) = (serve(lives, "200 OK"), serve(stuck, "503 Service Unavailable"));
        let all = async {
            tokio::select! {
                _ = futures::future::join(asks, tells) => {}
                () = lives => {}
                () = stuck => {}
            }
        };
        tokio::time::timeout(EVENT_TIMEOUT, all).await.expect("it is told in time");
    }
}

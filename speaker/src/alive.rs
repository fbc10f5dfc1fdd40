//! Asks the speakers of other nodes that this node does not hear whether they live, while it drains: only who lives may announce in its place. One
//! task, owned by the main loop's `JoinSet`; cancelling it closes its sockets. It owns the answers, and tells who has answered lately.
//!
//! What a speaker asks is its admin endpoint: gobgpd's liveness is judged by the same answer, so whoever gives it keeps its routes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use ferrolb_proto::bgp::{Answers, Doubted};
use ferrolb_runtime::clock::Clock;
use futures::StreamExt;
use futures::stream::{self, FusedStream};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::event::Event;
use crate::health::http::get;

/// How often each is asked: one answer may be lost until the last one is too old. Later where a round takes longer.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// How long an address may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// The most speakers that are asked at the same time: so many may be silent, and a round is not longer than the interval.
const ASKED_AT_ONCE_MAX: usize = 64;
/// What is asked, and the status code of who lives.
const PATH: &str = crate::bgp::driver::HEALTHZ;
const ALIVE: u16 = 200;

/// Asks who is doubted, on this port, until nobody wants to know any more; counts who did not answer.
pub async fn run(port: u16, mut doubted: watch::Receiver<Doubted>, events: mpsc::Sender<Event>, unanswered: Counter) {
    let (mut answers, mut said) = (Answers::default(), BTreeSet::new());
    let (mut round, mut begun) = (pin!(ask(Doubted::new(), port)), None);
    loop {
        let idle = round.is_terminated() && !doubted.borrow().is_empty();
        let due = idle.then(|| begun.map_or_else(Clock::now, |begun| begun + ASK_INTERVAL));
        tokio::select! {
            answer = round.next(), if !round.is_terminated() => {
                match answer {
                    Some(Ok(node)) => answers.take(node, Clock::now()),
                    Some(Err(())) => drop(unanswered.inc()),
                    None => {}
                }
                // What a round has found is told at once: each change is a plan.
                if !round.is_terminated() {
                    continue;
                }
            }
            () = Clock::sleep_until(due) => {
                begun = Some(Clock::now());
                round.set(ask(doubted.borrow().clone(), port));
                continue;
            }
            () = Clock::sleep_until(answers.deadline()) => {}
            changed = doubted.changed() => {
                if changed.is_err() {
                    return;
                }
                if doubted.borrow().is_empty() {
                    round.set(ask(Doubted::new(), port));
                }
            }
        }
        let lately = answers.lately(&doubted.borrow(), Clock::now());
        if lately != said {
            said.clone_from(&lately);
            if events.send(Event::Answered(lately)).await.is_err() {
                return;
            }
        }
    }
}

/// One round: who lives, as the answers come.
fn ask(doubted: Doubted, port: u16) -> impl FusedStream<Item = Result<Box<str>, ()>> {
    let one = move |(node, addresses): (Box<str>, Box<[IpAddr]>)| async move {
        for address in addresses {
            let server = SocketAddr::new(address, port);
            match get(server, PATH, None, ASK_TIMEOUT).await {
                Ok(answer) if answer.status == ALIVE => return Ok(node),
                Ok(answer) => debug!(%node, %server, status = answer.status, "a speaker that is not alive"),
                Err(error) => debug!(%node, %server, %error, "a speaker that does not answer"),
            }
        }
        Err(())
    };
    stream::iter(doubted).map(one).buffer_unordered(ASKED_AT_ONCE_MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// How long a busy machine may take to ask and tell.
    const TOLD_MAX: Duration = Duration::from_secs(30);

    /// Answers whoever asks for the path of who lives.
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
        let ((wanted, doubted), (events, mut told)) = (watch::channel(Doubted::new()), mpsc::channel(1));
        let unanswered = Counter::default();
        let asks = run(port, doubted, events, unanswered.clone());
        let tells = async {
            let nobody = at(3);
            wanted.send_replace(Doubted::from([
                ("refused".into(), [nobody].into()),
                ("second".into(), [nobody, at(1)].into()),
                ("stuck".into(), [at(2)].into()),
            ]));
            let answered = |event| match event {
                Some(Event::Answered(nodes)) => nodes.into_iter().map(String::from).collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            };
            assert_eq!((answered(told.recv().await), unanswered.get()), (vec!["second".to_owned()], 2));
            wanted.send_replace(Doubted::new());
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
        tokio::time::timeout(TOLD_MAX, all).await.expect("it is told in time");
    }
}

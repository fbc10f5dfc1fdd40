//! The driver against real listeners of every kind: it sends requests, never blocks, and closes its
//! connections.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use ferrolb_proto::facts::{HealthCheck, Key};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Longer than anything here takes.
const TIMEOUT: Duration = Duration::from_secs(10);

fn id(endpoint: SocketAddr) -> ProbeTarget {
    ProbeTarget { service: Arc::new(Key::new("default", "web")), endpoint }
}

fn check(kind: CheckKind) -> Arc<ProbeConfig> {
    let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(150));
    Arc::new(ProbeConfig { kind, interval, timeout, fall: 2, rise: 2 })
}

fn http() -> Arc<ProbeConfig> {
    check(CheckKind::Http { path: "/healthz".into() })
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("{what}"))
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A running driver with its input and output.
struct ProbeHarness {
    wanted: watch::Sender<HealthChecks>,
    events: mpsc::Receiver<Event>,
    metrics: ProbeMetrics,
    /// The driver and the servers.
    tasks: JoinSet<()>,
}

impl ProbeHarness {
    fn new() -> Self {
        let (wanted, receiver) = watch::channel(HealthChecks::default());
        let (sender, events) = mpsc::channel(1);
        let metrics = ProbeMetrics::new(&mut Registry::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(run(receiver, sender, metrics.clone()));
        Self { wanted, events, metrics, tasks }
    }

    fn want(&self, targets: impl IntoIterator<Item = (SocketAddr, Arc<ProbeConfig>)>) {
        let targets = targets.into_iter().map(|(endpoint, check)| (id(endpoint), check)).collect();
        self.wanted
            .send(HealthChecks { targets: Arc::new(targets), disallowed: 0, slowed: 0 })
            .unwrap();
    }

    /// Returns the next reported change: the endpoint, and the reason if it fails.
    async fn change(&mut self) -> (SocketAddr, Option<String>) {
        match soon("a change", self.events.recv()).await {
            Some(Event::EndpointHealth { id, failing }) => (id.endpoint, failing.map(Into::into)),
            other => panic!("{other:?}"),
        }
    }

    /// Starts a server that sends `words` to each client, then `tail` repeatedly. Returns its
    /// address and its number of clients.
    async fn serve(
        &mut self,
        words: &'static str,
        tail: &'static [u8],
    ) -> (SocketAddr, Arc<AtomicU32>) {
        let (listener, address) = listen().await;
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        self.tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(words.as_bytes()).await;
                while !tail.is_empty() && stream.write_all(tail).await.is_ok() {}
            }
        });
        (address, asked)
    }

    /// Waits until each server has received this many requests.
    async fn requested(&self, servers: &[&Arc<AtomicU32>], times: u32) {
        let all = async {
            while servers.iter().any(|asked| asked.load(Ordering::Relaxed) < times) {
                tokio::task::yield_now().await;
            }
        };
        soon("every server is asked", all).await;
    }
}

#[tokio::test]
async fn whatever_answers_passes_or_fails_by_what_it_says_in_bounded_time() {
    let mut bench = ProbeHarness::new();
    let (ok, ok_asked) = bench.serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"").await;
    let (moved, moved_asked) =
        bench.serve("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", b"").await;
    let (endless, endless_asked) = bench.serve("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096]).await;
    let (missing, _) =
        bench.serve("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"").await;
    let (busy, _) = bench.serve("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate", b"").await;
    let (garbage, _) = bench.serve("SSH-2.0-dropbear\r\n", b"").await;
    // The kernel accepts the connections, and no program responds.
    let (_silent, silent) = listen().await;
    let (_open, open) = listen().await;
    let refusing = listen().await.1;
    let by_http =
        [ok, moved, endless, missing, busy, garbage, silent].map(|endpoint| (endpoint, http()));
    let by_tcp = [open, refusing].map(|endpoint| (endpoint, check(CheckKind::Tcp)));
    bench.want(by_http.into_iter().chain(by_tcp));
    let mut failing = BTreeMap::new();
    for _ in 0..5 {
        let (endpoint, why) = bench.change().await;
        assert_eq!(
            failing.insert(endpoint, why.expect("it fails")),
            None,
            "{endpoint} is told once"
        );
    }
    bench.requested(&[&ok_asked, &moved_asked, &endless_asked], 5).await;
    assert!(bench.events.try_recv().is_err(), "the others pass");
    let expect = [
        (missing, "HTTP status 404"),
        (busy, "HTTP status 503"),
        (garbage, "not an HTTP response: "),
        (silent, "no response within 150 ms"),
        (refusing, "connection refused"),
    ];
    for (endpoint, why) in expect {
        assert!(failing[&endpoint].starts_with(why), "{endpoint} {why}: {failing:?}");
    }
    let metrics = &bench.metrics;
    assert_eq!((metrics.targets.get(), metrics.failing.get(), metrics.unlogged.get()), (9, 5, 0));
    for (outcome, at_least) in [
        (CheckOutcome::Passed, 10),
        (CheckOutcome::Status, 4),
        (CheckOutcome::NotHttp, 2),
        (CheckOutcome::Timeout, 2),
        (CheckOutcome::Refused, 2),
    ] {
        assert!(metrics.checks(outcome).get() >= at_least, "{outcome:?}");
    }
    assert_eq!(metrics.checks(CheckOutcome::Unreachable).get(), 0);
}

#[tokio::test]
async fn an_endpoint_that_recovers_is_told_and_one_that_goes_is_forgotten_and_asked_no_more() {
    let mut bench = ProbeHarness::new();
    let (listener, address) = listen().await;
    let (status, asked) = (Arc::new(AtomicU16::new(500)), Arc::new(AtomicU32::new(0)));
    let (says, count) = (Arc::clone(&status), Arc::clone(&asked));
    bench.tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 1024]).await;
            let words =
                format!("HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n", says.load(Ordering::Relaxed));
            let _ = stream.write_all(words.as_bytes()).await;
        }
    });
    bench.want([(address, http())]);
    assert_eq!(bench.change().await, (address, Some("HTTP status 500".to_owned())));
    status.store(204, Ordering::Relaxed);
    assert_eq!(bench.change().await, (address, None));
    status.store(500, Ordering::Relaxed);
    assert_eq!(bench.change().await.0, address);
    bench.want([]);
    assert_eq!(bench.change().await, (address, None));
    let (other, other_asked) =
        bench.serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"").await;
    let before = asked.load(Ordering::Relaxed);
    bench.want([(other, http())]);
    bench.requested(&[&other_asked], 5).await;
    assert_eq!(asked.load(Ordering::Relaxed), before);
    assert_eq!((bench.metrics.targets.get(), bench.metrics.failing.get()), (1, 0));
}

#[tokio::test]
async fn what_is_withdrawn_closes_its_connection_at_once_and_so_does_the_end() {
    for ends in [false, true] {
        let mut bench = ProbeHarness::new();
        let (listener, address) = listen().await;
        let slow = ProbeConfig { timeout: TIMEOUT * 3, ..(*http()).clone() };
        bench.want([(address, Arc::new(slow))]);
        let (mut stream, _) = soon("a question", listener.accept()).await.unwrap();
        let mut head = [0; 4096];
        assert!(soon("its words", stream.read(&mut head)).await.unwrap() > 0);
        if ends {
            drop(bench.wanted);
            soon("the driver ends", bench.tasks.join_next()).await;
        } else {
            bench.want([]);
        }
        assert_eq!(soon("the connection is closed", stream.read(&mut head)).await.unwrap_or(0), 0);
    }
}

#[test]
fn the_log_has_so_many_lines_a_second() {
    let mut lines = LogLimiter::default();
    let at = |millis: u64| Instant::from_millis(5_000 + millis);
    let said = |lines: &mut LogLimiter, now| (0..50).filter(|_| lines.allow(now)).count();
    assert_eq!(
        [at(0), at(999), at(1000), at(1001)].map(|now| said(&mut lines, now)),
        [10, 0, 10, 0]
    );
}

#[test]
fn every_path_that_a_service_may_write_is_asked_for_as_it_is_written() {
    let mut accepted = 0;
    for c in (' '..='~').filter(|c| *c != ';') {
        let text = format!("http/a{c}b");
        let Ok(HealthCheck { kind: CheckKind::Http { path }, .. }) =
            HealthCheck::read(&text, Some(""))
        else {
            continue;
        };
        let uri: hyper::Uri = path.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(uri.path_and_query().map(ToString::to_string).as_deref(), Some(&*path));
        accepted += 1;
    }
    assert!(accepted > 70, "{accepted}");
}

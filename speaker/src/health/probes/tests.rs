//! Tests of the driver with real listeners: the driver sends requests, never blocks, and closes its
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

/// Timeout of each step of these tests.
const TIMEOUT: Duration = Duration::from_secs(10);

fn probe_target(endpoint: SocketAddr) -> ProbeTarget {
    ProbeTarget { service: Arc::new(Key::new("default", "web")), endpoint }
}

fn check(kind: CheckKind) -> Arc<ProbeConfig> {
    let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(150));
    Arc::new(ProbeConfig { kind, interval, timeout, fall: 2, rise: 2 })
}

fn http() -> Arc<ProbeConfig> {
    check(CheckKind::Http { path: "/healthz".into() })
}

async fn within_timeout<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.unwrap_or_else(|_| panic!("timeout: {what}"))
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

    fn set_targets(&self, targets: impl IntoIterator<Item = (SocketAddr, Arc<ProbeConfig>)>) {
        let targets: BTreeMap<_, _> =
            targets.into_iter().map(|(endpoint, check)| (probe_target(endpoint), check)).collect();
        let targets = targets.into_iter().collect();
        self.wanted.send(HealthChecks { targets, disallowed: 0, slowed: 0 }).unwrap();
    }

    /// Returns the next reported change: the endpoint, and the reason if it fails.
    async fn next_change(&mut self) -> (SocketAddr, Option<String>) {
        match within_timeout("a change of an endpoint's health", self.events.recv()).await {
            Some(Event::EndpointHealth { id, failing }) => (id.endpoint, failing.map(Into::into)),
            other => panic!("{other:?}"),
        }
    }

    /// Starts a server that sends `head` to each client, then `tail` repeatedly. Returns its
    /// address and its number of clients.
    async fn serve(
        &mut self,
        head: &'static str,
        tail: &'static [u8],
    ) -> (SocketAddr, Arc<AtomicU32>) {
        let (listener, address) = listen().await;
        let request_count = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&request_count);
        self.tasks.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(head.as_bytes()).await;
                while !tail.is_empty() && stream.write_all(tail).await.is_ok() {}
            }
        });
        (address, request_count)
    }

    /// Waits until each server has received this many requests.
    async fn wait_for_requests(&self, servers: &[&Arc<AtomicU32>], times: u32) {
        let all = async {
            while servers.iter().any(|request_count| request_count.load(Ordering::Relaxed) < times)
            {
                tokio::task::yield_now().await;
            }
        };
        within_timeout("requests to every server", all).await;
    }
}

#[tokio::test]
async fn checks_pass_or_fail_by_the_response() {
    let mut harness = ProbeHarness::new();
    let (ok, ok_requests) =
        harness.serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"").await;
    let (moved, moved_requests) =
        harness.serve("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", b"").await;
    let (endless, endless_requests) = harness.serve("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096]).await;
    let (missing, _) =
        harness.serve("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"").await;
    let (busy, _) = harness.serve("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate", b"").await;
    let (garbage, _) = harness.serve("SSH-2.0-dropbear\r\n", b"").await;
    // The kernel accepts the connections, and no program responds.
    let (_silent, silent) = listen().await;
    let (_open, open) = listen().await;
    let refusing = listen().await.1;
    let by_http =
        [ok, moved, endless, missing, busy, garbage, silent].map(|endpoint| (endpoint, http()));
    let by_tcp = [open, refusing].map(|endpoint| (endpoint, check(CheckKind::Tcp)));
    harness.set_targets(by_http.into_iter().chain(by_tcp));
    let mut failing = BTreeMap::new();
    for _ in 0..5 {
        let (endpoint, why) = harness.next_change().await;
        assert_eq!(
            failing.insert(endpoint, why.expect("the check fails")),
            None,
            "{endpoint} is reported once"
        );
    }
    harness.wait_for_requests(&[&ok_requests, &moved_requests, &endless_requests], 5).await;
    assert!(harness.events.try_recv().is_err(), "no passing endpoint is reported");
    let expect = [
        (missing, "HTTP status 404"),
        (busy, "HTTP status 503"),
        (garbage, "not an HTTP response: "),
        (silent, "no response within 150 ms"),
        (refusing, "connection refused"),
    ];
    for (endpoint, why) in expect {
        assert!(
            failing[&endpoint].starts_with(why),
            "{endpoint} does not fail with {why:?}: {failing:?}"
        );
    }
    let metrics = &harness.metrics;
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
async fn a_recovery_is_reported_and_a_removed_endpoint_is_not_checked() {
    let mut harness = ProbeHarness::new();
    let (listener, address) = listen().await;
    let (status, request_count) = (Arc::new(AtomicU16::new(500)), Arc::new(AtomicU32::new(0)));
    let (served_status, count) = (Arc::clone(&status), Arc::clone(&request_count));
    harness.tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 1024]).await;
            let head = format!(
                "HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n",
                served_status.load(Ordering::Relaxed)
            );
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    harness.set_targets([(address, http())]);
    assert_eq!(harness.next_change().await, (address, Some("HTTP status 500".to_owned())));
    status.store(204, Ordering::Relaxed);
    assert_eq!(harness.next_change().await, (address, None));
    status.store(500, Ordering::Relaxed);
    assert_eq!(harness.next_change().await.0, address);
    harness.set_targets([]);
    assert_eq!(harness.next_change().await, (address, None));
    let (other, other_requests) =
        harness.serve("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"").await;
    let before = request_count.load(Ordering::Relaxed);
    harness.set_targets([(other, http())]);
    harness.wait_for_requests(&[&other_requests], 5).await;
    assert_eq!(request_count.load(Ordering::Relaxed), before);
    assert_eq!((harness.metrics.targets.get(), harness.metrics.failing.get()), (1, 0));
}

#[tokio::test]
async fn a_removed_target_closes_its_connection_at_once() {
    for ends in [false, true] {
        let mut harness = ProbeHarness::new();
        let (listener, address) = listen().await;
        let slow = ProbeConfig { timeout: TIMEOUT * 3, ..(*http()).clone() };
        harness.set_targets([(address, Arc::new(slow))]);
        let (mut stream, _) = within_timeout("a connection", listener.accept()).await.unwrap();
        let mut head = [0; 4096];
        assert!(within_timeout("a request", stream.read(&mut head)).await.unwrap() > 0);
        if ends {
            drop(harness.wanted);
            within_timeout("the end of the driver", harness.tasks.join_next()).await;
        } else {
            harness.set_targets([]);
        }
        assert_eq!(
            within_timeout("the end of the connection", stream.read(&mut head)).await.unwrap_or(0),
            0
        );
    }
}

#[test]
fn log_lines_per_second_are_limited() {
    let mut log_limiter = LogLimiter::default();
    let at = |millis: u64| Instant::from_millis(5_000 + millis);
    let allowed_lines =
        |log_limiter: &mut LogLimiter, now| (0..50).filter(|_| log_limiter.allow(now)).count();
    assert_eq!(
        [at(0), at(999), at(1000), at(1001)].map(|now| allowed_lines(&mut log_limiter, now)),
        [10, 0, 10, 0]
    );
}

#[test]
fn every_valid_path_is_requested_unchanged() {
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

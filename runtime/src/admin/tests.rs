//! The endpoint over a real loopback socket, as a kubelet and a scraper see it.

use std::io::{Read, Write};
use std::net;

use super::*;
use crate::vitals::BEAT_AGE_MAX;

fn start_on_loopback(vitals: &Arc<Vitals>) -> (AdminServer, mpsc::Receiver<StateRequest>) {
    serve("127.0.0.1:0".parse().unwrap(), registry(), Arc::clone(vitals), None, None)
}

/// One request over a connection of its own: the status code, and the whole answer.
fn ask(server: &AdminServer, request_line: &str) -> (u16, String) {
    let mut stream = net::TcpStream::connect(server.address.unwrap()).unwrap();
    write!(stream, "{request_line} HTTP/1.1\r\nHost: admin\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn healthz_follows_the_main_loop_and_readyz_says_why_not() {
    let vitals = Arc::new(Vitals::new(Clock::now()));
    let (server, _requests) = start_on_loopback(&vitals);
    assert_eq!(ask(&server, "GET /healthz").0, 200);
    let (code, answer) = ask(&server, "GET /readyz");
    assert_eq!((code, answer.ends_with("not ready: starting\n")), (503, true), "{answer}");
    vitals.ready();
    assert_eq!(ask(&server, "GET /readyz").0, 200);
    vitals.not_ready("draining");
    assert_eq!(ask(&server, "GET /readyz").0, 503);
}

/// The answer to a client at `peer` at `now`, of an endpoint that started at the zero of its clock.
async fn answer_to(peer: &str, path: &str, now: Instant) -> StatusCode {
    let (state, mut requests) = mpsc::channel(1);
    let vitals = Arc::new(Vitals::new(Instant::ZERO));
    let shared = Shared { registry: registry(), vitals, state, action: None, ward: None, dropped: Counter::default() };
    let request = Request::get(path).body(()).unwrap();
    let response = answer(&shared, peer.parse().unwrap(), request, now).await.unwrap();
    requests.try_recv().unwrap_err();
    response.status()
}

#[tokio::test]
async fn healthz_of_a_stuck_main_loop_is_503() {
    let limit = Instant::ZERO + BEAT_AGE_MAX;
    assert_eq!(answer_to("10.0.0.1", "/healthz", limit).await, 200);
    assert_eq!(answer_to("10.0.0.1", "/healthz", limit + Duration::from_millis(1)).await, 503);
}

#[tokio::test]
async fn a_ward_is_healthy_while_it_lives_and_the_main_loop_does() {
    let limit = Instant::ZERO + BEAT_AGE_MAX;
    for (lives, now, expect) in [(true, limit, 200), (false, limit, 503), (true, limit + Duration::from_millis(1), 503)]
    {
        let (ward, found) = Ward::new("/ward/healthz");
        found.store(lives, Ordering::Relaxed);
        let (state, _requests) = mpsc::channel(1);
        let vitals = Arc::new(Vitals::new(Instant::ZERO));
        let shared =
            Shared { registry: registry(), vitals, state, action: None, ward: Some(ward), dropped: Counter::default() };
        let request = Request::get("/ward/healthz").body(()).unwrap();
        let response = answer(&shared, "10.0.0.1".parse().unwrap(), request, now).await.unwrap();
        assert_eq!(response.status(), expect, "{lives}, {now:?}");
    }
}

#[test]
fn metrics_are_open_metrics_with_our_prefix() {
    let (server, _requests) = start_on_loopback(&Arc::new(Vitals::new(Clock::now())));
    let (code, answer) = ask(&server, "GET /metrics");
    assert_eq!(code, 200);
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.contains("\nferrolb_admin_connections_dropped_total 0\n"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[test]
fn what_is_not_there_is_404_and_what_is_no_get_is_405() {
    let (server, _requests) = start_on_loopback(&Arc::new(Vitals::new(Clock::now())));
    for (request_line, expect) in [("GET /", 404), ("GET /healthz/x", 404), ("GET /debug", 404), ("POST /healthz", 405)]
    {
        assert_eq!(ask(&server, request_line).0, expect, "{request_line}");
    }
}

#[test]
fn state_is_what_the_main_loop_answers() {
    let (server, mut requests) = start_on_loopback(&Arc::new(Vitals::new(Clock::now())));
    let main_loop = std::thread::spawn(move || {
        requests.blocking_recv().unwrap().answer(&serde_json::json!({"state": {"services": 2}}));
        requests
    });
    let (code, answer) = ask(&server, "GET /state");
    assert_eq!((code, answer.ends_with(r#"{"state":{"services":2}}"#)), (200, true), "{answer}");
    drop(main_loop.join().unwrap());
    assert_eq!(ask(&server, "GET /state").0, 503, "the main loop has ended");
}

#[test]
fn only_loopback_clients_are_on_the_node() {
    let cases = [
        ("127.0.0.1", true),
        ("127.9.9.9", true),
        ("::1", true),
        ("::ffff:127.0.0.1", true),
        ("::ffff:10.0.0.1", false),
        ("10.0.0.1", false),
        ("169.254.1.1", false),
        ("fe80::1", false),
        ("0.0.0.0", false),
        ("::", false),
    ];
    for (peer, expect) in cases {
        assert_eq!(is_on_node(peer.parse().unwrap()), expect, "{peer}");
    }
}

#[tokio::test]
async fn state_refuses_a_stranger_with_403_and_does_not_bother_the_main_loop() {
    assert_eq!(answer_to("10.0.0.1", "/state", Instant::ZERO).await, 403);
}

/// A path by which something is done.
const ACTION: &str = "/do";

#[tokio::test]
async fn an_action_is_done_for_clients_on_the_node_that_get_it_and_for_no_other() {
    let (action, mut requests) = Action::new(ACTION);
    let (state, _states) = mpsc::channel(1);
    let vitals = Arc::new(Vitals::new(Instant::ZERO));
    let shared =
        Shared { registry: registry(), vitals, state, action: Some(action), ward: None, dropped: Counter::default() };
    let ask_at = async |peer: &str, method: Method, path: &str, now| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        answer(&shared, peer.parse().unwrap(), request, now).await.unwrap().status()
    };
    let ask = async |peer: &str, method: Method, path: &str| ask_at(peer, method, path, Instant::ZERO).await;
    let stuck = Instant::ZERO + BEAT_AGE_MAX + Duration::from_millis(1);
    assert_eq!(ask_at("127.0.0.1", Method::GET, ACTION, stuck).await, 503, "the main loop is stuck");
    assert_eq!(ask("10.0.0.1", Method::GET, ACTION).await, 403);
    assert_eq!(ask("::1", Method::HEAD, ACTION).await, 200);
    assert_eq!(ask("::1", Method::POST, ACTION).await, 405);
    assert_eq!(ask("::1", Method::GET, "/do/it").await, 404);
    requests.try_recv().unwrap_err();
    for (outcome, expect) in [(Ok(()), 200), (Err("no".to_owned()), 409)] {
        let done = async { requests.recv().await.unwrap().answer(outcome) };
        assert_eq!(tokio::join!(ask("127.0.0.1", Method::GET, ACTION), done).0, expect);
    }
    drop(requests);
    assert_eq!(ask("127.0.0.1", Method::GET, ACTION).await, 503, "nobody does it");
}

#[tokio::test]
async fn what_no_client_waits_for_any_more_is_known_by_it() {
    let (action, mut requests) = Action::new(ACTION);
    let client = timeout(Duration::from_millis(1), action.request());
    client.await.unwrap_err();
    assert!(!requests.recv().await.unwrap().is_awaited());
}

#[test]
fn a_taken_port_leaves_the_program_running_without_the_endpoint() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let vitals = Arc::new(Vitals::new(Clock::now()));
    let (server, mut requests) = serve(taken.local_addr().unwrap(), registry(), vitals, None, None);
    assert_eq!(server.address, None);
    assert_eq!(
        requests.try_recv().unwrap_err(),
        mpsc::error::TryRecvError::Empty,
        "the main loop's receiver stays open"
    );
}

#[test]
fn the_default_address_is_reached_by_both_families() {
    let vitals = Arc::new(Vitals::new(Clock::now()));
    let (server, _requests) = serve("0.0.0.0:0".parse().unwrap(), registry(), vitals, None, None);
    let port = server.address.unwrap().port();
    for host in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
        assert!(net::TcpStream::connect((host, port)).is_ok(), "{host}");
    }
}

#[test]
fn a_connection_over_the_limit_is_closed_and_counted() {
    let (server, _requests) = start_on_loopback(&Arc::new(Vitals::new(Clock::now())));
    let connect = || net::TcpStream::connect(server.address.unwrap()).unwrap();
    let idle: Vec<_> = (0..ADMIN_CONNECTIONS_MAX).map(|_| connect()).collect();
    let mut over = connect();
    assert_eq!(over.read(&mut [0; 1]).unwrap_or(0), 0, "closed without a byte");
    drop(idle);
    // The endpoint sees the closed connections before the next one, or closes that one too and counts it.
    let answer = std::iter::repeat_with(|| {
        let mut stream = connect();
        let mut answer = String::new();
        let asked = write!(stream, "GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n");
        asked.and_then(|()| stream.read_to_string(&mut answer)).map(|_| answer).unwrap_or_default()
    })
    .find(|answer| !answer.is_empty())
    .unwrap();
    let line = answer.lines().find(|line| line.starts_with("ferrolb_admin_connections_dropped_total")).unwrap();
    assert_ne!(line, "ferrolb_admin_connections_dropped_total 0");
}

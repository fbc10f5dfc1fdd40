//! The endpoint over real loopback sockets, with requests like those of a kubelet and a scraper.

use std::io::{Read, Write};
use std::net;

mod attack;

use super::*;
use crate::clock::Clock;
use crate::watchdog::HEARTBEAT_AGE_MAX;

/// Starts the endpoint at these addresses, on free ports.
fn start_at(
    admin: &str,
    probes: &str,
    watchdog: &Arc<Watchdog>,
) -> (AdminServer, mpsc::Receiver<StateRequest>) {
    let free = |host: &str| SocketAddr::new(host.parse().unwrap(), 0);
    let addresses = ListenAddresses { admin: free(admin), probes: free(probes) };
    serve(addresses, registry(), Arc::clone(watchdog), None, None)
}

fn start_on_loopback(watchdog: &Arc<Watchdog>) -> (AdminServer, mpsc::Receiver<StateRequest>) {
    start_at("127.0.0.1", "127.0.0.1", watchdog)
}

fn listening(listener: Option<&Listener>) -> SocketAddr {
    listener.unwrap().address
}

/// Sends one request to the admin listener.
fn ask(server: &AdminServer, request_line: &str) -> (u16, String) {
    ask_at(listening(server.admin.as_ref()), request_line)
}

/// Sends one request over its own connection. Returns the status code and the whole response.
fn ask_at(address: SocketAddr, request_line: &str) -> (u16, String) {
    let mut stream = net::TcpStream::connect(address).unwrap();
    write!(stream, "{request_line} HTTP/1.1\r\nHost: admin\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn healthz_follows_the_main_loop_and_readyz_says_why_not() {
    let watchdog = Arc::new(Watchdog::new(Clock::now()));
    let (server, _requests) = start_on_loopback(&watchdog);
    assert_eq!(ask(&server, "GET /healthz").0, 200);
    let (code, answer) = ask(&server, "GET /readyz");
    assert_eq!((code, answer.ends_with("not ready: starting\n")), (503, true), "{answer}");
    watchdog.ready();
    assert_eq!(ask(&server, "GET /readyz").0, 200);
    watchdog.not_ready("draining");
    assert_eq!(ask(&server, "GET /readyz").0, 503);
}

/// Returns the status of a response to `peer` at `now`, from an endpoint whose main loop sent its
/// last heartbeat at time 0.
async fn answer_to(peer: &str, path: &str, now: Instant) -> StatusCode {
    answer_of(PageSet::All, peer, path, now).await
}

async fn answer_of(offer: PageSet, peer: &str, path: &str, now: Instant) -> StatusCode {
    let (state, mut requests) = mpsc::channel(1);
    let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
    let shared = Shared { registry: registry(), watchdog, state, action: None, ward: None };
    let request = Request::get(path).body(()).unwrap();
    let response = answer(&shared, offer, peer.parse().unwrap(), request, now).await.unwrap();
    requests.try_recv().unwrap_err();
    response.status()
}

#[tokio::test]
async fn healthz_of_a_stuck_main_loop_is_503_at_each_listener() {
    let limit = Instant::ZERO + HEARTBEAT_AGE_MAX;
    for offer in [PageSet::All, PageSet::Probes] {
        assert_eq!(answer_of(offer, "10.0.0.1", "/healthz", limit).await, 200, "{offer:?}");
        assert_eq!(
            answer_of(offer, "10.0.0.1", "/healthz", limit + Duration::from_millis(1)).await,
            503,
            "{offer:?}"
        );
    }
}

#[tokio::test]
async fn a_ward_is_healthy_while_it_lives_and_the_main_loop_does() {
    let limit = Instant::ZERO + HEARTBEAT_AGE_MAX;
    for (lives, now, expect) in
        [(true, limit, 200), (false, limit, 503), (true, limit + Duration::from_millis(1), 503)]
    {
        let (ward, found) = Companion::new("/ward/healthz");
        found.store(lives, Ordering::Relaxed);
        let (state, _requests) = mpsc::channel(1);
        let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
        let shared =
            Shared { registry: registry(), watchdog, state, action: None, ward: Some(ward) };
        let request = Request::get("/ward/healthz").body(()).unwrap();
        let response =
            answer(&shared, PageSet::All, "10.0.0.1".parse().unwrap(), request, now).await.unwrap();
        assert_eq!(response.status(), expect, "{lives}, {now:?}");
    }
}

#[test]
fn metrics_are_open_metrics_with_our_prefix() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let (code, answer) = ask(&server, "GET /metrics");
    assert_eq!(code, 200);
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    let series = r#"ferrolb_admin_connections_dropped_total{listener="probes",reason="full"} 0"#;
    assert!(answer.contains(series), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[test]
fn what_is_not_there_is_404_and_what_is_no_get_is_405() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    for (request_line, expect) in
        [("GET /", 404), ("GET /healthz/x", 404), ("GET /debug", 404), ("POST /healthz", 405)]
    {
        assert_eq!(ask(&server, request_line).0, expect, "{request_line}");
    }
}

#[test]
fn state_is_what_the_main_loop_answers() {
    let (server, mut requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let main_loop = std::thread::spawn(move || {
        requests.blocking_recv().unwrap().respond(&serde_json::json!({"state": {"services": 2}}));
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

/// The path of an action.
const ACTION: &str = "/do";

#[tokio::test]
async fn an_action_is_done_for_clients_on_the_node_that_get_it_and_for_no_other() {
    let (action, mut requests) = Action::new(ACTION);
    let (state, _states) = mpsc::channel(1);
    let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
    let shared = Shared { registry: registry(), watchdog, state, action: Some(action), ward: None };
    let ask_at = async |peer: &str, method: Method, path: &str, now| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        answer(&shared, PageSet::All, peer.parse().unwrap(), request, now).await.unwrap().status()
    };
    let ask = async |peer: &str, method: Method, path: &str| {
        ask_at(peer, method, path, Instant::ZERO).await
    };
    let stuck = Instant::ZERO + HEARTBEAT_AGE_MAX + Duration::from_millis(1);
    assert_eq!(
        ask_at("127.0.0.1", Method::GET, ACTION, stuck).await,
        503,
        "the main loop is stuck"
    );
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
    assert!(!requests.recv().await.unwrap().is_client_waiting());
}

#[test]
fn the_probe_listener_has_probes_and_no_page_that_takes_long() {
    let watchdog = Arc::new(Watchdog::new(Clock::now()));
    let (server, _requests) = start_on_loopback(&watchdog);
    let probes = listening(server.probes.as_ref());
    for (path, expect) in [("/healthz", 200), ("/readyz", 503), ("/metrics", 404), ("/state", 404)]
    {
        assert_eq!(ask_at(probes, &format!("GET {path}")).0, expect, "{path}");
    }
}

#[test]
fn a_taken_port_leaves_the_program_running_without_that_listener() {
    let taken = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let watchdog = Arc::new(Watchdog::new(Clock::now()));
    let (free, taken) = ("127.0.0.1:0".parse().unwrap(), taken.local_addr().unwrap());
    for (admin, probes) in [(taken, free), (free, taken)] {
        let (server, mut requests) =
            serve(ListenAddresses { admin, probes }, registry(), Arc::clone(&watchdog), None, None);
        assert_eq!(
            (server.admin.is_some(), server.probes.is_some()),
            (admin == free, probes == free)
        );
        assert_eq!(
            requests.try_recv().unwrap_err(),
            mpsc::error::TryRecvError::Empty,
            "the main loop's receiver stays open"
        );
    }
}

#[test]
fn the_default_address_is_reached_by_both_families() {
    let (server, _requests) =
        start_at("0.0.0.0", "127.0.0.1", &Arc::new(Watchdog::new(Clock::now())));
    let port = listening(server.admin.as_ref()).port();
    for host in [IpAddr::from([127, 0, 0, 1]), net::Ipv6Addr::LOCALHOST.into()] {
        assert!(net::TcpStream::connect((host, port)).is_ok(), "{host}");
    }
}

/// Returns the number of connections that the admin listener dropped for a reason.
fn dropped(server: &AdminServer, reason: &str) -> u64 {
    let series = format!(
        r#"ferrolb_admin_connections_dropped_total{{listener="admin",reason="{reason}"}} "#
    );
    let (_, page) = ask(server, "GET /metrics");
    page.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[test]
fn the_oldest_idle_connection_of_a_client_is_closed_for_a_new_one_and_counted() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let connect = || net::TcpStream::connect(listening(server.admin.as_ref())).unwrap();
    let mut idle: Vec<_> = (0..connections::PEER_CONNECTIONS_MAX).map(|_| connect()).collect();
    assert_eq!(dropped(&server, "peer"), 1, "the one that asks needs a place");
    let mut closed = |index: usize| {
        let stream = &mut idle[index];
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0; 1]).is_ok()
    };
    assert_eq!([closed(0), closed(1)], [true, false]);
}

#[test]
fn a_request_that_is_none_or_does_not_come_is_counted() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let says = |words: &[u8]| {
        let mut stream = net::TcpStream::connect(listening(server.admin.as_ref())).unwrap();
        stream.write_all(words).unwrap();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut Vec::new());
    };
    says(b"SSH-2.0-scanner\r\n\r\n");
    says(&[b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 64 * 1024]].concat());
    assert_eq!(dropped(&server, "malformed"), 2);
    says(b"GET / HTTP/1.1\r\n");
    assert_eq!(dropped(&server, "head"), 1);
}

#[test]
fn probes_and_scrapes_are_answered_while_hosts_hold_five_hundred_connections() {
    // The second address is that of a pod, where the kubelet is one client of many.
    for (name, probes, attacks_probes) in
        [("admin listener", "127.0.0.1", false), ("probe listener of a pod", "0.0.0.0", true)]
    {
        // The heartbeat stays valid for a minute after the attack.
        let watchdog =
            Arc::new(Watchdog::new(Clock::now() + attack::length() + Duration::from_secs(60)));
        let (server, _requests) = start_at("0.0.0.0", probes, &watchdog);
        let [admin, probes] = [&server.admin, &server.probes]
            .map(|listener| attack::local(listening(listener.as_ref())));
        attack::assert_served_under_attack(
            name,
            if attacks_probes { probes } else { admin },
            probes,
            admin,
        );
    }
}

//! Tests of the admin endpoint over real loopback sockets, with requests like those of a kubelet
//! and of Prometheus.

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

fn address_of(listener: Option<&Listener>) -> SocketAddr {
    listener.unwrap().address
}

/// Sends one request to the admin listener.
fn send_request(server: &AdminServer, request_line: &str) -> (u16, String) {
    send_request_to(address_of(server.admin.as_ref()), request_line)
}

/// Sends one request over its own connection. Returns the status code and the whole response.
fn send_request_to(address: SocketAddr, request_line: &str) -> (u16, String) {
    let mut stream = net::TcpStream::connect(address).unwrap();
    write!(stream, "{request_line} HTTP/1.1\r\nHost: admin\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    (response.split(' ').nth(1).unwrap().parse().unwrap(), response)
}

#[test]
fn healthz_follows_the_main_loop_and_readyz_has_a_reason() {
    let watchdog = Arc::new(Watchdog::new(Clock::now()));
    let (server, _requests) = start_on_loopback(&watchdog);
    assert_eq!(send_request(&server, "GET /healthz").0, 200);
    let (code, response) = send_request(&server, "GET /readyz");
    assert_eq!(
        (code, response.ends_with("not ready: starting\n")),
        (503, true),
        "the response is {response}"
    );
    watchdog.ready();
    assert_eq!(send_request(&server, "GET /readyz").0, 200);
    watchdog.not_ready("draining");
    assert_eq!(send_request(&server, "GET /readyz").0, 503);
}

/// Returns the status code of the response to `peer` at `now`. The main loop sent its last
/// heartbeat at time 0.
async fn status_code(peer: &str, path: &str, now: Instant) -> StatusCode {
    status_code_of(PageSet::All, peer, path, now).await
}

/// Returns the same as [`status_code`], from the listener with these pages.
async fn status_code_of(pages: PageSet, peer: &str, path: &str, now: Instant) -> StatusCode {
    let (state, mut requests) = mpsc::channel(1);
    let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
    let shared = Shared { registry: registry(), watchdog, state, action: None, companion: None };
    let request = Request::get(path).body(()).unwrap();
    let response = respond_to(&shared, pages, peer.parse().unwrap(), request, now).await.unwrap();
    requests.try_recv().unwrap_err();
    response.status()
}

#[tokio::test]
async fn healthz_of_a_stalled_main_loop_is_503_on_each_listener() {
    let limit = Instant::ZERO + HEARTBEAT_AGE_MAX;
    for pages in [PageSet::All, PageSet::Probes] {
        assert_eq!(
            status_code_of(pages, "10.0.0.1", "/healthz", limit).await,
            200,
            "the listener serves {pages:?}"
        );
        assert_eq!(
            status_code_of(pages, "10.0.0.1", "/healthz", limit + Duration::from_millis(1)).await,
            503,
            "the listener serves {pages:?}"
        );
    }
}

#[tokio::test]
async fn a_companion_is_healthy_only_while_the_main_loop_runs() {
    let limit = Instant::ZERO + HEARTBEAT_AGE_MAX;
    for (is_reachable, now, expect) in
        [(true, limit, 200), (false, limit, 503), (true, limit + Duration::from_millis(1), 503)]
    {
        let (companion, healthy) = Companion::new("/companion/healthz");
        healthy.store(is_reachable, Ordering::Relaxed);
        let (state, _requests) = mpsc::channel(1);
        let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
        let shared = Shared {
            registry: registry(),
            watchdog,
            state,
            action: None,
            companion: Some(companion),
        };
        let request = Request::get("/companion/healthz").body(()).unwrap();
        let response = respond_to(&shared, PageSet::All, "10.0.0.1".parse().unwrap(), request, now)
            .await
            .unwrap();
        assert_eq!(
            response.status(),
            expect,
            "is_reachable is {is_reachable}, and the time is {now:?}"
        );
    }
}

#[test]
fn metrics_are_open_metrics_with_the_prefix_ferrolb() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let (code, response) = send_request(&server, "GET /metrics");
    assert_eq!(code, 200);
    assert!(
        response.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "the response is {response}"
    );
    let series = r#"ferrolb_admin_connections_dropped_total{listener="probes",reason="full"} 0"#;
    assert!(response.contains(series), "the response is {response}");
    assert!(response.ends_with("# EOF\n"), "the response is {response}");
}

#[test]
fn an_unknown_path_is_404_and_another_method_is_405() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    for (request_line, expect) in
        [("GET /", 404), ("GET /healthz/x", 404), ("GET /debug", 404), ("POST /healthz", 405)]
    {
        assert_eq!(send_request(&server, request_line).0, expect, "the request is {request_line}");
    }
}

#[test]
fn state_is_the_reply_of_the_main_loop() {
    let (server, mut requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let main_loop = std::thread::spawn(move || {
        requests.blocking_recv().unwrap().respond(&serde_json::json!({"state": {"services": 2}}));
        requests
    });
    let (code, response) = send_request(&server, "GET /state");
    assert_eq!(
        (code, response.ends_with(r#"{"state":{"services":2}}"#)),
        (200, true),
        "the response is {response}"
    );
    drop(main_loop.join().unwrap());
    assert_eq!(send_request(&server, "GET /state").0, 503, "the main loop has ended");
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
        assert_eq!(is_on_node(peer.parse().unwrap()), expect, "the client is {peer}");
    }
}

#[tokio::test]
async fn state_is_403_for_remote_clients() {
    assert_eq!(status_code("10.0.0.1", "/state", Instant::ZERO).await, 403);
}

/// The path of an action.
const ACTION_PATH: &str = "/do";

#[tokio::test]
async fn an_action_requires_a_get_request_from_the_node() {
    let (action, mut requests) = Action::new(ACTION_PATH);
    let (state, _states) = mpsc::channel(1);
    let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
    let shared =
        Shared { registry: registry(), watchdog, state, action: Some(action), companion: None };
    let status_at = async |peer: &str, method: Method, path: &str, now| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        respond_to(&shared, PageSet::All, peer.parse().unwrap(), request, now)
            .await
            .unwrap()
            .status()
    };
    let status = async |peer: &str, method: Method, path: &str| {
        status_at(peer, method, path, Instant::ZERO).await
    };
    let stalled = Instant::ZERO + HEARTBEAT_AGE_MAX + Duration::from_millis(1);
    assert_eq!(
        status_at("127.0.0.1", Method::GET, ACTION_PATH, stalled).await,
        503,
        "the main loop is stalled"
    );
    assert_eq!(status("10.0.0.1", Method::GET, ACTION_PATH).await, 403);
    assert_eq!(status("::1", Method::HEAD, ACTION_PATH).await, 200);
    assert_eq!(status("::1", Method::POST, ACTION_PATH).await, 405);
    assert_eq!(status("::1", Method::GET, "/do/it").await, 404);
    requests.try_recv().unwrap_err();
    for (outcome, expect) in [(Ok(()), 200), (Err("no".to_owned()), 409)] {
        let done = async { requests.recv().await.unwrap().respond(outcome) };
        assert_eq!(tokio::join!(status("127.0.0.1", Method::GET, ACTION_PATH), done).0, expect);
    }
    drop(requests);
    assert_eq!(
        status("127.0.0.1", Method::GET, ACTION_PATH).await,
        503,
        "no receiver executes the action"
    );
}

#[tokio::test]
async fn an_action_request_detects_a_disconnected_client() {
    let (action, mut requests) = Action::new(ACTION_PATH);
    let client = timeout(Duration::from_millis(1), action.request());
    client.await.unwrap_err();
    assert!(!requests.recv().await.unwrap().is_client_waiting());
}

#[test]
fn the_probe_listener_serves_only_probes() {
    let watchdog = Arc::new(Watchdog::new(Clock::now()));
    let (server, _requests) = start_on_loopback(&watchdog);
    let probes = address_of(server.probes.as_ref());
    for (path, expect) in [("/healthz", 200), ("/readyz", 503), ("/metrics", 404), ("/state", 404)]
    {
        assert_eq!(send_request_to(probes, &format!("GET {path}")).0, expect, "the path is {path}");
    }
}

#[test]
fn a_port_in_use_disables_only_its_listener() {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let watchdog = Arc::new(Watchdog::new(Clock::now()));
    let (free, in_use) = ("127.0.0.1:0".parse().unwrap(), listener.local_addr().unwrap());
    for (admin, probes) in [(in_use, free), (free, in_use)] {
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
fn the_default_address_accepts_both_families() {
    let (server, _requests) =
        start_at("0.0.0.0", "127.0.0.1", &Arc::new(Watchdog::new(Clock::now())));
    let port = address_of(server.admin.as_ref()).port();
    for host in [IpAddr::from([127, 0, 0, 1]), net::Ipv6Addr::LOCALHOST.into()] {
        assert!(net::TcpStream::connect((host, port)).is_ok(), "a client can connect to {host}");
    }
}

/// Returns the number of connections that the admin listener dropped for a reason.
fn dropped(server: &AdminServer, reason: &str) -> u64 {
    let series = format!(
        r#"ferrolb_admin_connections_dropped_total{{listener="admin",reason="{reason}"}} "#
    );
    let (_, page) = send_request(server, "GET /metrics");
    page.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[test]
fn a_closed_idle_connection_of_a_client_is_counted() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let connect = || net::TcpStream::connect(address_of(server.admin.as_ref())).unwrap();
    let mut idle: Vec<_> = (0..connections::PEER_CONNECTIONS_MAX).map(|_| connect()).collect();
    assert_eq!(
        dropped(&server, "peer"),
        1,
        "the request for the metrics replaces one idle connection"
    );
    let mut closed = |index: usize| {
        let stream = &mut idle[index];
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0; 1]).is_ok()
    };
    assert_eq!([closed(0), closed(1)], [true, false]);
}

#[test]
fn malformed_and_missing_requests_are_counted() {
    let (server, _requests) = start_on_loopback(&Arc::new(Watchdog::new(Clock::now())));
    let send_bytes = |bytes: &[u8]| {
        let mut stream = net::TcpStream::connect(address_of(server.admin.as_ref())).unwrap();
        stream.write_all(bytes).unwrap();
        // A reset also ends the connection.
        let _ = stream.read_to_end(&mut Vec::new());
    };
    send_bytes(b"SSH-2.0-scanner\r\n\r\n");
    send_bytes(&[b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 64 * 1024]].concat());
    assert_eq!(dropped(&server, "malformed"), 2);
    send_bytes(b"GET / HTTP/1.1\r\n");
    assert_eq!(dropped(&server, "head"), 1);
}

#[test]
fn probes_and_scrapes_succeed_despite_five_hundred_connections() {
    // In the second row, the probe listener accepts all hosts, as in a pod, and is attacked.
    for (name, probes, attacks_probes) in
        [("admin listener", "127.0.0.1", false), ("probe listener of a pod", "0.0.0.0", true)]
    {
        // The heartbeat stays valid for a minute after the attack.
        let watchdog =
            Arc::new(Watchdog::new(Clock::now() + attack::duration() + Duration::from_secs(60)));
        let (server, _requests) = start_at("0.0.0.0", probes, &watchdog);
        let [admin, probes] = [&server.admin, &server.probes]
            .map(|listener| attack::local(address_of(listener.as_ref())));
        attack::assert_served_under_attack(
            name,
            if attacks_probes { probes } else { admin },
            probes,
            admin,
        );
    }
}

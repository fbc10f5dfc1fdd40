//! Tests with hosts that keep as many connections to the admin endpoint open as they can, while a
//! kubelet probes the endpoint and Prometheus scrapes it.
//!
//! 500 connections from 20 addresses are open. A connection that the listener closes is opened
//! again at once. A response counts if it arrives within 1 s for a probe, and within 10 s for a
//! scrape. A kubelet restarts a container after three failed probes in a row, so the tests fail if
//! three requests in a row fail: on a busy machine, a client may not run between its connect and
//! its request, and then loses its slot.
//!
//! `FERROLB_ATTACK_SECONDS=60 cargo test -p ferrolb-runtime --lib five_hundred -- --nocapture` runs
//! the attack for a minute. On two processors with a load of 15 to 20, without optimization:
//!
//! | target | opened | probes | slowest | scrapes | slowest |
//! |---|---|---|---|---|---|
//! | admin listener | 63,066 | 200 of 200 | 177 ms | 200 of 200 | 645 ms |
//! | probe listener, at a pod's address | 81,266 | 264 of 264 | 483 ms | 264 of 264 | 24 ms |
//!
//! The same attack on a running speaker, from another host with 330 half-open connections per
//! second in addition, opened 41,015 connections. 120 of 120 probes succeeded within 51 ms, and 120
//! of 120 scrapes within 633 ms.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::clock::Clock;

/// The number of attacking hosts, whose addresses begin at 127.0.0.2, and the number of connections
/// that each host keeps open: 500 in total.
const ATTACKERS: u8 = 20;
const CONNECTIONS_PER_HOST: usize = 25;
/// The duration of an attack if the environment does not set it.
const DEFAULT_DURATION: Duration = Duration::from_secs(4);
/// The interval at which an attacker writes to its connections, and replaces those that the server
/// closed.
const ATTACK_INTERVAL: Duration = Duration::from_millis(50);
/// The interval of the probes, and the kubelet's timeout (`timeoutSeconds` is 1).
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Prometheus' timeout (`scrape_timeout`).
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of failed probes in a row after which a kubelet restarts a container (`failureThreshold`
/// of the probe).
const FAILURE_THRESHOLD: usize = 3;

/// A way in which an attacker keeps a connection open.
#[derive(Clone, Copy, Debug)]
enum AttackKind {
    /// Sends nothing.
    Idle,
    /// Sends a byte of a request at intervals.
    Slow,
    /// Sends header fields without end.
    Endless,
    /// Sends half of a request and closes its sending side.
    HalfClosed,
    /// Requests the longest page, and does not read the response.
    Unread,
}

impl AttackKind {
    const ALL: [Self; 5] = [Self::Idle, Self::Slow, Self::Endless, Self::HalfClosed, Self::Unread];

    fn payload(self) -> &'static [u8] {
        match self {
            Self::Idle => b"",
            Self::Slow => b"G",
            Self::Endless => {
                b"X-Endless: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"
            }
            Self::HalfClosed => b"GET /healthz HTTP/1.1\r\n",
            Self::Unread => b"GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n",
        }
    }
}

/// Opens a connection from the loopback address `from`.
fn open(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), PROBE_TIMEOUT)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Opens a connection, and sends the first bytes according to `kind`.
fn start_connection(
    from: Ipv4Addr,
    to: SocketAddr,
    kind: AttackKind,
) -> std::io::Result<TcpStream> {
    let mut stream = open(from, to)?;
    match kind {
        AttackKind::Idle | AttackKind::Slow => {}
        AttackKind::Endless => stream.write_all(b"GET /metrics HTTP/1.1\r\n")?,
        AttackKind::HalfClosed => {
            stream.write_all(kind.payload())?;
            stream.shutdown(Shutdown::Write)?;
        }
        AttackKind::Unread => stream.write_all(kind.payload())?,
    }
    Ok(stream)
}

/// Sends the next bytes of the attack, and returns whether the server has kept the connection open.
fn is_still_open(stream: &mut TcpStream, kind: AttackKind) -> bool {
    let blocked = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    let sends = matches!(kind, AttackKind::Slow | AttackKind::Endless);
    if sends && stream.write(kind.payload()).is_err_and(|error| !blocked(&error)) {
        return false;
    }
    if matches!(kind, AttackKind::Unread) {
        return stream.peek(&mut [0; 1]).map_or_else(|error| blocked(&error), |length| length > 0);
    }
    stream.read(&mut [0; 256]).is_err_and(|error| blocked(&error))
}

/// Runs one host, which keeps all its connections open until the attack ends.
fn attack(from: Ipv4Addr, to: SocketAddr, stopped: &AtomicBool, opened: &AtomicUsize) {
    let mut open: Vec<Option<TcpStream>> = (0..CONNECTIONS_PER_HOST).map(|_| None).collect();
    while !stopped.load(Ordering::Relaxed) {
        for (kind, slot) in AttackKind::ALL.into_iter().cycle().zip(&mut open) {
            if !slot.as_mut().is_some_and(|stream| is_still_open(stream, kind)) {
                *slot = start_connection(from, to, kind).ok();
                opened.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::thread::park_timeout(ATTACK_INTERVAL);
    }
}

/// Sends a request as a client on the node. Returns the status line of the response, and the time
/// until the response arrived.
fn send_request(
    to: SocketAddr,
    path: &str,
    limit: Duration,
) -> (Result<String, ErrorKind>, Duration) {
    let start = Clock::now();
    let send = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        // One segment, as a kubelet sends it.
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n").as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        response.lines().next().map(str::to_owned).ok_or_else(|| ErrorKind::UnexpectedEof.into())
    };
    (send().map_err(|error| error.kind()), Clock::now().since(start))
}

/// Requests of one kind: of each, the time until its response, or the failure.
#[derive(Debug, Default)]
struct Requests(Vec<Result<Duration, String>>);

impl Requests {
    fn send(&mut self, to: SocketAddr, path: &str, limit: Duration) {
        let (status_line, elapsed) = send_request(to, path, limit);
        let is_served = status_line.as_deref() == Ok("HTTP/1.1 200 OK") && elapsed <= limit;
        self.0.push(if is_served {
            Ok(elapsed)
        } else {
            Err(format!("{status_line:?} after {elapsed:?}"))
        });
    }

    /// Prints a summary, and checks the number of failures in a row.
    fn check(&self, name: &str) {
        let served: Vec<_> = self.0.iter().flatten().collect();
        println!(
            "{name}: {} of {} succeeded, the slowest after {:?}",
            served.len(),
            self.0.len(),
            served.iter().max()
        );
        let failed_in_a_row = self.0.split(Result::is_ok).map(<[_]>::len).max();
        assert!(
            failed_in_a_row < Some(FAILURE_THRESHOLD),
            "{name}: {failed_in_a_row:?} failed in a row: {:?}",
            self.0
        );
    }
}

/// Returns the duration of an attack.
pub(super) fn duration() -> Duration {
    let seconds =
        std::env::var_os("FERROLB_ATTACK_SECONDS").and_then(|text| text.to_str()?.parse().ok());
    seconds.map_or(DEFAULT_DURATION, Duration::from_secs)
}

/// Attacks `target`, and meanwhile probes one address and scrapes another.
pub(super) fn assert_served_under_attack(
    name: &str,
    target: SocketAddr,
    probes: SocketAddr,
    metrics: SocketAddr,
) {
    let (stopped, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut probed, mut scraped) = (Requests::default(), Requests::default());
    std::thread::scope(|scope| {
        let hosts: Vec<_> = (0..ATTACKERS)
            .map(|host| {
                scope.spawn({
                    let (stopped, opened) = (&stopped, &opened);
                    move || attack(Ipv4Addr::new(127, 0, 0, 2 + host), target, stopped, opened)
                })
            })
            .collect();
        let end = Clock::now() + duration();
        while Clock::now() < end {
            let next = Clock::now() + PROBE_INTERVAL;
            probed.send(probes, "/healthz", PROBE_TIMEOUT);
            scraped.send(metrics, "/metrics", SCRAPE_TIMEOUT);
            std::thread::park_timeout(next.since(Clock::now()));
        }
        stopped.store(true, Ordering::Relaxed);
        hosts.iter().for_each(|host| host.thread().unpark());
    });
    println!("{name}: {} connections opened", opened.into_inner());
    probed.check(&format!("{name}, probes"));
    scraped.check(&format!("{name}, scrapes"));
}

/// Returns 127.0.0.1 with the port of `server`. No attack comes from 127.0.0.1.
pub(super) fn local(server: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), server.port())
}

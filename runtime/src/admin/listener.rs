//! A listener of the admin endpoint: its socket, its thread, and its connections, each of which
//! serves one request. [`Connections`] limits the connections of each client, so no client can
//! block another one.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connections::{ConnectionLimit, Connections};
use super::{PageSet, Shared, respond_to};
use crate::clock::Clock;

/// The time within which a client must send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// The longest lifetime of a connection, which also limits clients that read slowly.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum number of connections that the kernel queues until the listener accepts them, which
/// takes milliseconds. If the queue is full, the client's kernel retries after a second.
const BACKLOG: i32 = 1024;
/// The pause after a failed accept, which usually means that the process has no free file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Reason why a connection was closed before it got a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ConnectionDrop {
    /// The accept failed, usually because the process has no free file descriptors.
    Accept,
    /// The client has too many connections.
    Peer,
    /// All clients together have too many connections.
    Full,
    /// The head of the request did not arrive within [`HEAD_TIMEOUT`].
    Head,
    /// The client's bytes are not HTTP, or the head of the request is too long.
    Malformed,
    /// The connection reached its maximum lifetime, [`CONNECTION_TIMEOUT`].
    Slow,
}

impl ConnectionDrop {
    const ALL: [Self; 6] =
        [Self::Accept, Self::Peer, Self::Full, Self::Head, Self::Malformed, Self::Slow];

    const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Peer => "peer",
            Self::Full => "full",
            Self::Head => "head",
            Self::Malformed => "malformed",
            Self::Slow => "slow",
        }
    }
}

impl From<ConnectionLimit> for ConnectionDrop {
    fn from(exceeded_limit: ConnectionLimit) -> Self {
        match exceeded_limit {
            ConnectionLimit::Peer => Self::Peer,
            ConnectionLimit::All => Self::Full,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    listener: &'static str,
    reason: &'static str,
}

/// Counter of the connections that were closed before they got a response.
#[derive(Clone, Debug)]
pub(super) struct DroppedConnections(Family<ConnectionLabels, Counter>);

impl DroppedConnections {
    /// Registers the counter with one series for each listener and reason, all with the value 0.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let dropped = Self(Family::default());
        for pages in [PageSet::All, PageSet::Probes] {
            for reason in ConnectionDrop::ALL {
                let _ = dropped.of(pages, reason);
            }
        }
        let help = "Connections to the admin endpoint that were closed before a response";
        registry.register("admin_connections_dropped", help, dropped.0.clone());
        dropped
    }

    fn of(&self, pages: PageSet, reason: ConnectionDrop) -> Counter {
        self.0.get_or_create_owned(&ConnectionLabels {
            listener: pages.listener(),
            reason: reason.name(),
        })
    }
}

/// A running listener. Dropping it ends its thread.
#[derive(Debug)]
pub struct Listener {
    /// The address to which the listener is bound.
    pub address: SocketAddr,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            if thread.join().is_err() {
                warn!(address = %self.address, "the admin endpoint panicked and was started again");
            }
        }
    }
}

impl Listener {
    /// Starts a listener on its own thread.
    ///
    /// # Errors
    /// The address cannot be bound, or the thread cannot be started.
    pub(super) fn start(
        listen: SocketAddr,
        pages: PageSet,
        shared: &Arc<Shared>,
        dropped: &DroppedConnections,
    ) -> std::io::Result<Self> {
        let listener = bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let server = ListenerState { pages, shared: Arc::clone(shared), dropped: dropped.clone() };
        let thread =
            std::thread::Builder::new().name(pages.listener().into()).spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, server) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self { address, thread: Some((stop, thread)) })
    }
}

/// Binds a socket to an address. `0.0.0.0` stands for all addresses of both families, as in
/// Kubernetes' own components, because the kubelet of an IPv6 cluster probes over IPv6.
fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    if listen.ip() != IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return bind_to(listen);
    }
    match bind_to((Ipv6Addr::UNSPECIFIED, listen.port()).into()) {
        // The kernel does not support IPv6, so bind only the IPv4 address.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            bind_to(listen)
        }
        outcome => outcome,
    }
}

fn bind_to(listen: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM.cloexec(), None)?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// State that the connections of a listener share.
#[derive(Clone)]
struct ListenerState {
    pages: PageSet,
    shared: Arc<Shared>,
    dropped: DroppedConnections,
}

impl ListenerState {
    fn count(&self, reason: ConnectionDrop) {
        self.dropped.of(self.pages, reason).inc();
    }
}

async fn accept(listener: tokio::net::TcpListener, server: ListenerState) {
    let (mut open_connections, mut tasks) = (Connections::default(), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = tasks.join_next() => {
                if let Ok(id) = ended {
                    open_connections.remove(id);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (request_arrived, (closes, closed)) =
                    (Arc::new(AtomicBool::new(false)), oneshot::channel());
                let peer = peer.ip().to_canonical();
                let (id, exceeded_limit) =
                    open_connections.take(peer, Arc::clone(&request_arrived), closes);
                if let Some(exceeded_limit) = exceeded_limit {
                    server.count(exceeded_limit.into());
                    debug!(%peer, ?exceeded_limit, "too many connections to the admin endpoint: the oldest is closed");
                }
                tasks.spawn(serve_connection(
                    stream,
                    peer,
                    request_arrived,
                    closed,
                    server.clone(),
                    id,
                ));
                // Yield, so that the new task can read a request that has arrived before the next
                // connection is accepted.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                server.count(ConnectionDrop::Accept);
                debug!(%error, "the admin endpoint cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request of a connection, unless `closed` ends the connection first to make room for a
/// new one. Returns the connection's ID.
async fn serve_connection(
    stream: TcpStream,
    peer: IpAddr,
    request_arrived: Arc<AtomicBool>,
    closed: oneshot::Receiver<Infallible>,
    server: ListenerState,
    id: u64,
) -> u64 {
    let service = service_fn(|request| {
        request_arrived.store(true, Ordering::Relaxed);
        respond_to(&server.shared, server.pages, peer, request, Clock::now())
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let outcome = tokio::select! {
        outcome = timeout(CONNECTION_TIMEOUT, served) => outcome,
        _ = closed => return id,
    };
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            debug!(%peer, %error, "connection to the admin endpoint");
            if error.is_timeout() {
                server.count(ConnectionDrop::Head);
            } else if error.is_parse() {
                server.count(ConnectionDrop::Malformed);
            }
        }
        Err(_) => {
            debug!(%peer, "connection to the admin endpoint took too long");
            server.count(ConnectionDrop::Slow);
        }
    }
    id
}

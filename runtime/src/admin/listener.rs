//! One address at which the admin endpoint listens: its socket, its thread, and its connections,
//! each of which serves one request. No client keeps another from being served ([`Places`]).

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

use super::places::{Crowded, Places};
use super::{Offer, Shared, answer};
use crate::clock::Clock;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// How long one connection may live, slow reader or not.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections that the kernel keeps before they are accepted. Waiting there takes milliseconds; a
/// client that finds no room there tries again after a second.
const BACKLOG: i32 = 1024;
/// The pause after a failed accept: out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection was closed before it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reason {
    /// The kernel could not hand it over: no file descriptors are left.
    Accept,
    /// Its client has too many.
    Peer,
    /// All clients have too many together.
    Full,
    /// Its request's head did not arrive in time.
    Head,
    /// Its bytes are no HTTP, or too long a head.
    Malformed,
    /// It lasted too long.
    Slow,
}

impl Reason {
    const ALL: [Self; 6] = [Self::Accept, Self::Peer, Self::Full, Self::Head, Self::Malformed, Self::Slow];

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

impl From<Crowded> for Reason {
    fn from(crowded: Crowded) -> Self {
        match crowded {
            Crowded::Peer => Self::Peer,
            Crowded::All => Self::Full,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    listener: &'static str,
    reason: &'static str,
}

/// Counts connections that were closed before they were answered.
#[derive(Clone, Debug)]
pub(super) struct Dropped(Family<DropLabels, Counter>);

impl Dropped {
    /// All series at 0.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let dropped = Self(Family::default());
        for offer in [Offer::All, Offer::Probes] {
            for reason in Reason::ALL {
                let _ = dropped.of(offer, reason);
            }
        }
        let help = "Connections to the admin endpoint that were closed before they were answered";
        registry.register("admin_connections_dropped", help, dropped.0.clone());
        dropped
    }

    fn of(&self, offer: Offer, reason: Reason) -> Counter {
        self.0.get_or_create_owned(&DropLabels { listener: offer.listener(), reason: reason.name() })
    }
}

/// A running listener; dropping it ends its thread.
#[derive(Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            if thread.join().is_err() {
                warn!(address = %self.address, "the admin endpoint had crashed");
            }
        }
    }
}

impl Listener {
    /// Listens, on a thread of its own.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(super) fn start(
        listen: SocketAddr,
        offer: Offer,
        shared: &Arc<Shared>,
        dropped: &Dropped,
    ) -> std::io::Result<Self> {
        let listener = bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let server = Server { offer, shared: Arc::clone(shared), dropped: dropped.clone() };
        let thread = std::thread::Builder::new().name(offer.listener().into()).spawn(move || {
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

/// Listens on an address. `0.0.0.0` is every address of the host, of both families, as for
/// Kubernetes' own programs: the kubelet of a cluster of IPv6 alone probes by IPv6.
fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    if listen.ip() != IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return bind_to(listen);
    }
    match bind_to((Ipv6Addr::UNSPECIFIED, listen.port()).into()) {
        // The kernel has no IPv6.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => bind_to(listen),
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
struct Server {
    offer: Offer,
    shared: Arc<Shared>,
    dropped: Dropped,
}

impl Server {
    fn count(&self, reason: Reason) {
        self.dropped.of(self.offer, reason).inc();
    }
}

async fn accept(listener: tokio::net::TcpListener, server: Server) {
    let (mut places, mut connections) = (Places::default(), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                if let Ok(id) = ended {
                    places.leave(id);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (asked, (closes, closed)) = (Arc::new(AtomicBool::new(false)), oneshot::channel());
                let peer = peer.ip().to_canonical();
                let (id, crowded) = places.take(peer, Arc::clone(&asked), closes);
                if let Some(crowded) = crowded {
                    server.count(crowded.into());
                    debug!(%peer, ?crowded, "too many connections to the admin endpoint: the oldest is closed");
                }
                connections.spawn(connection(stream, peer, asked, closed, server.clone(), id));
                // A request that has arrived is read before the next connection is accepted.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                server.count(Reason::Accept);
                debug!(%error, "the admin endpoint cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request, unless the place is taken from it before; returns the place.
async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    asked: Arc<AtomicBool>,
    closed: oneshot::Receiver<Infallible>,
    server: Server,
    id: u64,
) -> u64 {
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        answer(&server.shared, server.offer, peer, request, Clock::now())
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
                server.count(Reason::Head);
            } else if error.is_parse() {
                server.count(Reason::Malformed);
            }
        }
        Err(_) => {
            debug!(%peer, "connection to the admin endpoint took too long");
            server.count(Reason::Slow);
        }
    }
    id
}

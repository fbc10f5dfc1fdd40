//! The admin endpoint: `/healthz`, `/readyz`, `/metrics`, and for loopback clients `/state` and what a program may be asked to do. It runs on
//! a thread and tokio runtime of its own, so that it can tell that the main loop is stuck; [`AdminServer`] owns that thread and ends it on drop.
//!
//! `/state` is asked of the main loop through a small queue, so the core needs no lock and nothing is serialised unasked.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ferrolb_proto::Instant;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::clock::Clock;
use crate::vitals::Vitals;

/// Connections served at once; one more is closed and counted.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// How long a client may take to send its request's head.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one connection may live, slow reader or not. It serves one request.
pub const ADMIN_CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// `/state` requests that may wait for the main loop; one more is answered 503.
pub const STATE_REQUESTS_MAX: usize = 4;
/// How long a `/state` client waits for the main loop.
pub const STATE_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests for an [`Action`] that may wait; one more is answered 503.
pub const ACTION_REQUESTS_MAX: usize = 1;
/// How long the client of an [`Action`] waits for it: shorter than the connection may live.
pub const ACTION_TIMEOUT: Duration = Duration::from_secs(13);
/// Connections that the kernel keeps before they are accepted, as the standard library has it.
const BACKLOG: i32 = 128;
/// The pause after a failed accept: out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
const STUCK: &str = "the main loop is stuck\n";
const ON_NODE_ONLY: &str = "only for clients on the node itself (loopback)\n";
const TEXT: &str = "text/plain; charset=utf-8";

/// An empty registry whose metrics all begin with `ferrolb_`. Everything is registered before [`serve`] takes it.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix("ferrolb")
}

/// A client that waits for a dump of the main loop's state.
#[derive(Debug)]
pub struct StateRequest(oneshot::Sender<Result<Vec<u8>, serde_json::Error>>);

impl StateRequest {
    /// Answers with `state` as JSON. A client that has gone is no error.
    pub fn answer(self, state: &impl Serialize) {
        if self.0.send(serde_json::to_vec(state)).is_err() {
            debug!("the client of /state did not wait for the answer");
        }
    }
}

/// A path by which a client on the node itself has the program do something. It is got, because that is all that hooks of a container can do.
#[derive(Debug)]
pub struct Action {
    path: &'static str,
    requests: mpsc::Sender<ActionRequest>,
}

impl Action {
    /// The action of a path, and what takes the requests for it.
    #[must_use]
    pub fn new(path: &'static str) -> (Self, mpsc::Receiver<ActionRequest>) {
        let (requests, taker) = mpsc::channel(ACTION_REQUESTS_MAX);
        (Self { path, requests }, taker)
    }

    async fn request(&self) -> Response<Full<Bytes>> {
        let (reply, answered) = oneshot::channel();
        if self.requests.try_send(ActionRequest(reply)).is_err() {
            return page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                "another client waits for the same, or nobody does it\n",
            );
        }
        match timeout(ACTION_TIMEOUT, answered).await {
            Ok(Ok(Ok(()))) => page(StatusCode::OK, TEXT, "done\n"),
            Ok(Ok(Err(why))) => page(StatusCode::CONFLICT, TEXT, format!("not done: {why}\n")),
            Ok(Err(_)) | Err(_) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not done in time\n"),
        }
    }
}

/// A client that waits until an [`Action`] is done.
#[derive(Debug)]
pub struct ActionRequest(oneshot::Sender<Result<(), String>>);

impl ActionRequest {
    /// Whether the client still waits: what was asked for longer ago is not done any more.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.0.is_closed()
    }

    /// Answers that it is done, or why not. A client that has gone is no error.
    pub fn answer(self, outcome: Result<(), String>) {
        if self.0.send(outcome).is_err() {
            debug!("the client of an action did not wait for the answer");
        }
    }
}

/// A program beside this one that lives as long as this one does and finds it so: what answers for it as `/healthz` does for the program itself.
#[derive(Debug)]
pub struct Ward {
    path: &'static str,
    lives: Arc<AtomicBool>,
}

impl Ward {
    /// The ward of a path, which does not live yet, and by what is said that it does.
    #[must_use]
    pub fn new(path: &'static str) -> (Self, Arc<AtomicBool>) {
        let lives = Arc::<AtomicBool>::default();
        (Self { path, lives: Arc::clone(&lives) }, lives)
    }
}

/// The running endpoint; dropping it ends its thread.
#[derive(Debug)]
pub struct AdminServer {
    /// Where it listens; `None` when the address could not be had.
    pub address: Option<SocketAddr>,
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// Keeps the main loop's receiver open even when nothing listens.
    _state: mpsc::Sender<StateRequest>,
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            if thread.join().is_err() {
                warn!("the admin endpoint had crashed");
            }
        }
    }
}

/// Starts the endpoint on `listen`. The receiver is the main loop's: it answers each [`StateRequest`] when it comes by.
///
/// An address that cannot be had is a WARN, and the program goes on without the endpoint.
#[must_use]
pub fn serve(
    listen: SocketAddr,
    mut registry: Registry,
    vitals: Arc<Vitals>,
    action: Option<Action>,
    ward: Option<Ward>,
) -> (AdminServer, mpsc::Receiver<StateRequest>) {
    let (state, requests) = mpsc::channel(STATE_REQUESTS_MAX);
    let dropped = Counter::default();
    registry.register("admin_connections_dropped", "Connections to the admin endpoint over the limit", dropped.clone());
    let shared = Arc::new(Shared { registry, vitals, state: state.clone(), action, ward, dropped });
    let mut server = AdminServer { address: None, thread: None, _state: state };
    match start(listen, shared) {
        Ok((address, stop, thread)) => {
            server.address = Some(address);
            server.thread = Some((stop, thread));
        }
        Err(error) => {
            warn!(%listen, %error, "no admin endpoint: no probes, no metrics; another --admin-listen may be free");
        }
    }
    (server, requests)
}

/// What all connections read.
struct Shared {
    registry: Registry,
    vitals: Arc<Vitals>,
    state: mpsc::Sender<StateRequest>,
    action: Option<Action>,
    ward: Option<Ward>,
    dropped: Counter,
}

/// Listens on an address. `0.0.0.0` is every address of the host, of both families, as for Kubernetes' own programs: the kubelet of a
/// cluster of IPv6 alone probes by IPv6.
fn bind(listen: SocketAddr) -> std::io::Result<TcpListener> {
    if listen.ip() != IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        return TcpListener::bind(listen);
    }
    match bind_both(listen.port()) {
        // The kernel has no IPv6.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            TcpListener::bind(listen)
        }
        outcome => outcome,
    }
}

fn bind_both(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.cloexec(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

type Started = (SocketAddr, oneshot::Sender<()>, JoinHandle<()>);

fn start(listen: SocketAddr, shared: Arc<Shared>) -> std::io::Result<Started> {
    let listener = bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = accept(listener, shared) => {}
                _ = stopped => {}
            }
        });
    })?;
    Ok((address, stop, thread))
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) if connections.len() < ADMIN_CONNECTIONS_MAX => {
                connections.spawn(connection(stream, peer.ip(), Arc::clone(&shared)));
            }
            Ok((_, peer)) => {
                shared.dropped.inc();
                debug!(%peer, "too many connections to the admin endpoint");
            }
            Err(error) => {
                shared.dropped.inc();
                debug!(%error, "the admin endpoint cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(&shared, peer, request, Clock::now()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(ADMIN_CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "connection to the admin endpoint"),
        Err(_) => debug!(%peer, "connection to the admin endpoint took too long"),
    }
}

async fn answer<B>(
    shared: &Shared,
    peer: IpAddr,
    request: Request<B>,
    now: Instant,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n"));
    }
    Ok(match request.uri().path() {
        "/healthz" if shared.vitals.is_alive(now) => page(StatusCode::OK, TEXT, "ok\n"),
        "/healthz" => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, STUCK),
        "/readyz" => match shared.vitals.why_not_ready() {
            None => page(StatusCode::OK, TEXT, "ok\n"),
            Some(why) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
        },
        "/metrics" => metrics(&shared.registry),
        "/state" if is_on_node(peer) => state(&shared.state).await,
        "/state" => page(StatusCode::FORBIDDEN, TEXT, ON_NODE_ONLY),
        path if shared.ward.as_ref().is_some_and(|ward| ward.path == path) => ward(shared, now),
        path => match shared.action.as_ref().filter(|action| action.path == path) {
            None => page(StatusCode::NOT_FOUND, TEXT, "there are /healthz, /readyz, /metrics and /state\n"),
            Some(_) if !is_on_node(peer) => page(StatusCode::FORBIDDEN, TEXT, ON_NODE_ONLY),
            // Who asks for the head alone only wants to know whether it is there.
            Some(_) if *request.method() == Method::HEAD => page(StatusCode::OK, TEXT, ""),
            // Whoever does it may know nothing new.
            Some(_) if !shared.vitals.is_alive(now) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, STUCK),
            Some(action) => action.request().await,
        },
    })
}

/// Whether the ward lives, as far as a main loop that does can say.
fn ward(shared: &Shared, now: Instant) -> Response<Full<Bytes>> {
    let lives = shared.ward.as_ref().is_some_and(|ward| ward.lives.load(Ordering::Relaxed));
    match (shared.vitals.is_alive(now), lives) {
        (true, true) => page(StatusCode::OK, TEXT, "ok\n"),
        (true, false) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "it does not answer\n"),
        (false, _) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, STUCK),
    }
}

/// State names Services and addresses of the whole cluster, and actions change what the node does: they are for whoever is on the node already.
fn is_on_node(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => page(StatusCode::OK, OPEN_METRICS, text),
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

async fn state(main_loop: &mpsc::Sender<StateRequest>) -> Response<Full<Bytes>> {
    let (reply, answered) = oneshot::channel();
    if main_loop.try_send(StateRequest(reply)).is_err() {
        return page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many clients of /state, or the main loop has ended\n");
    }
    match timeout(STATE_ANSWER_TIMEOUT, answered).await {
        Ok(Ok(Ok(json))) => page(StatusCode::OK, JSON, json),
        Ok(Ok(Err(error))) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("state is not JSON: {error}\n")),
        Ok(Err(_)) | Err(_) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the main loop does not answer\n"),
    }
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;

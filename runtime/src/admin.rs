//! The admin endpoint: `/healthz`, `/readyz`, `/metrics`, and for loopback clients `/state` and the
//! [`Action`] of a program. The kubelet's probes have a [`Listener`] of their own. Each listener
//! has its own thread and tokio runtime, so that it still replies, and reports a stalled main loop,
//! when the main loop does not run. [`AdminServer`] owns these threads and ends them on drop.
//!
//! Requests for `/state` reach the main loop through a small queue. The state therefore needs no
//! lock, and is serialized only on request.

mod connections;
mod listener;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrolb_proto::Instant;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use self::listener::{DroppedConnections, Listener};
use crate::watchdog::Watchdog;

/// The most `/state` requests that wait for the main loop. Further ones get status 503.
pub const STATE_REQUESTS_MAX: usize = 4;
/// The time for which a `/state` client waits for the main loop.
pub const STATE_REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most requests for an [`Action`] that wait for the main loop. Further ones get status 503.
pub const ACTION_REQUESTS_MAX: usize = 1;
/// The time for which a client of an [`Action`] waits until the action is done. Shorter than the
/// lifetime of a connection, so that the client still gets a response.
pub const ACTION_TIMEOUT: Duration = Duration::from_secs(13);

const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON_TYPE: &str = "application/json";
const MAIN_LOOP_STALLED: &str = "the main loop is stalled\n";
const LOCAL_CLIENTS_ONLY: &str = "only for clients on the node itself (loopback)\n";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Returns an empty registry whose metrics all begin with `ferrolb_`. All metrics must be
/// registered before [`serve`] takes it.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix("ferrolb")
}

/// A request for `/state`, whose client waits until the main loop replies with its state.
#[derive(Debug)]
pub struct StateRequest(oneshot::Sender<Result<Vec<u8>, serde_json::Error>>);

impl StateRequest {
    /// Replies with `state` as JSON. A client that has closed its connection is no error.
    pub fn respond(self, state: &impl Serialize) {
        if self.0.send(serde_json::to_vec(state)).is_err() {
            debug!("the client of /state disconnected before the response");
        }
    }
}

/// A path by which a client on the same node triggers an action of the program. The method is GET,
/// because a container's lifecycle hook can send nothing else.
#[derive(Debug)]
pub struct Action {
    path: &'static str,
    requests: mpsc::Sender<ActionRequest>,
}

impl Action {
    /// Returns the action of a path, and the receiver of the requests for it.
    #[must_use]
    pub fn new(path: &'static str) -> (Self, mpsc::Receiver<ActionRequest>) {
        let (requests, receiver) = mpsc::channel(ACTION_REQUESTS_MAX);
        (Self { path, requests }, receiver)
    }

    async fn request(&self) -> Response<Full<Bytes>> {
        let (reply, reply_receiver) = oneshot::channel();
        if self.requests.try_send(ActionRequest(reply)).is_err() {
            return page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT_TYPE,
                "the same action is in progress for another client, or this process cannot perform it\n",
            );
        }
        match timeout(ACTION_TIMEOUT, reply_receiver).await {
            Ok(Ok(Ok(()))) => page(StatusCode::OK, TEXT_TYPE, "done\n"),
            Ok(Ok(Err(why))) => page(StatusCode::CONFLICT, TEXT_TYPE, format!("not done: {why}\n")),
            Ok(Err(_)) | Err(_) => {
                page(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, "not done in time\n")
            }
        }
    }
}

/// A request for an [`Action`], whose client waits until the action is done.
#[derive(Debug)]
pub struct ActionRequest(oneshot::Sender<Result<(), String>>);

impl ActionRequest {
    /// Returns whether the client still waits. The program does not start an action whose client
    /// has closed its connection.
    #[must_use]
    pub fn is_client_waiting(&self) -> bool {
        !self.0.is_closed()
    }

    /// Replies that the action is done, or with the reason why it is not. A client that has closed
    /// its connection is no error.
    pub fn respond(self, outcome: Result<(), String>) {
        if self.0.send(outcome).is_err() {
            debug!("the client of an action disconnected before the response");
        }
    }
}

/// The health of a companion process (gobgpd), which the admin endpoint reports at a path of its
/// own. The companion counts as healthy while this program's main loop runs and can reach it.
#[derive(Debug)]
pub struct Companion {
    path: &'static str,
    healthy: Arc<AtomicBool>,
}

impl Companion {
    /// Returns the companion whose health is reported at this path, and the flag that the program
    /// sets while the companion is healthy. Initially, the flag is not set.
    #[must_use]
    pub fn new(path: &'static str) -> (Self, Arc<AtomicBool>) {
        let healthy = Arc::<AtomicBool>::default();
        (Self { path, healthy: Arc::clone(&healthy) }, healthy)
    }
}

/// The addresses on which the admin endpoint listens.
#[derive(Clone, Copy, Debug)]
pub struct ListenAddresses {
    /// Address of the listener that serves all pages, to all clients.
    pub admin: SocketAddr,
    /// Address of the listener that serves only probes and lifecycle hooks, for the kubelet.
    pub probes: SocketAddr,
}

/// The running admin endpoint. Dropping it ends the threads of its listeners.
#[derive(Debug)]
pub struct AdminServer {
    /// The listener for all pages; `None` if it could not start.
    pub admin: Option<Listener>,
    /// The listener for probes; `None` if it could not start.
    pub probes: Option<Listener>,
    /// A sender that keeps the main loop's receiver open even if no listener runs.
    _state: mpsc::Sender<StateRequest>,
}

/// Starts the admin endpoint. The main loop receives each [`StateRequest`] and replies to it.
///
/// If a listener cannot bind its address, the function logs a WARN, and the program continues
/// without that listener.
#[must_use]
pub fn serve(
    addresses: ListenAddresses,
    mut registry: Registry,
    watchdog: Arc<Watchdog>,
    action: Option<Action>,
    companion: Option<Companion>,
) -> (AdminServer, mpsc::Receiver<StateRequest>) {
    let (state, requests) = mpsc::channel(STATE_REQUESTS_MAX);
    let dropped = DroppedConnections::new(&mut registry);
    let shared = Arc::new(Shared { registry, watchdog, state: state.clone(), action, companion });
    let probes = Listener::start(addresses.probes, PageSet::Probes, &shared, &dropped);
    let probes = probes.inspect_err(|error| {
        let listen = addresses.probes;
        warn!(%listen, %error, "probes are not served, so the kubelet will restart this process: \
                                set --probe-listen to a free port");
    });
    let admin = Listener::start(addresses.admin, PageSet::All, &shared, &dropped);
    let admin = admin.inspect_err(|error| {
        let listen = addresses.admin;
        warn!(%listen, %error, "metrics are not served: set --admin-listen to a free port");
    });
    (AdminServer { admin: admin.ok(), probes: probes.ok(), _state: state }, requests)
}

/// The set of pages that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PageSet {
    All,
    /// All pages except `/metrics` and `/state`, which take long to produce. A probe therefore
    /// never waits for them.
    Probes,
}

impl PageSet {
    /// Returns the name of the listener with these pages, for its thread and its metrics.
    const fn listener(self) -> &'static str {
        match self {
            Self::All => "admin",
            Self::Probes => "probes",
        }
    }
}

/// State that all connections of both listeners share.
struct Shared {
    registry: Registry,
    watchdog: Arc<Watchdog>,
    state: mpsc::Sender<StateRequest>,
    action: Option<Action>,
    companion: Option<Companion>,
}

/// Returns the response to a request from `peer`, a client of the listener with these pages.
async fn respond_to<B>(
    shared: &Shared,
    pages: PageSet,
    peer: IpAddr,
    request: Request<B>,
    now: Instant,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(page(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "only GET\n"));
    }
    Ok(match request.uri().path() {
        "/healthz" if shared.watchdog.is_alive(now) => page(StatusCode::OK, TEXT_TYPE, "ok\n"),
        "/healthz" => page(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, MAIN_LOOP_STALLED),
        "/readyz" => match shared.watchdog.why_not_ready() {
            None => page(StatusCode::OK, TEXT_TYPE, "ok\n"),
            Some(why) => {
                page(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, format!("not ready: {why}\n"))
            }
        },
        "/metrics" | "/state" if pages == PageSet::Probes => page(
            StatusCode::NOT_FOUND,
            TEXT_TYPE,
            "only probes are served here; see --admin-listen\n",
        ),
        "/metrics" => metrics(&shared.registry),
        "/state" if is_on_node(peer) => state(&shared.state).await,
        "/state" => page(StatusCode::FORBIDDEN, TEXT_TYPE, LOCAL_CLIENTS_ONLY),
        path if shared.companion.as_ref().is_some_and(|companion| companion.path == path) => {
            companion_health(shared, now)
        }
        path => match shared.action.as_ref().filter(|action| action.path == path) {
            None => page(
                StatusCode::NOT_FOUND,
                TEXT_TYPE,
                "the pages are /healthz, /readyz, /metrics and /state\n",
            ),
            Some(_) if !is_on_node(peer) => {
                page(StatusCode::FORBIDDEN, TEXT_TYPE, LOCAL_CLIENTS_ONLY)
            }
            // A HEAD request only checks whether the path exists, and does not trigger the action.
            Some(_) if *request.method() == Method::HEAD => page(StatusCode::OK, TEXT_TYPE, ""),
            // A stalled main loop cannot execute the action.
            Some(_) if !shared.watchdog.is_alive(now) => {
                page(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, MAIN_LOOP_STALLED)
            }
            Some(action) => action.request().await,
        },
    })
}

/// Returns the response with the companion's health. While the main loop is stalled, it does not
/// check the companion, so the companion counts as unhealthy.
fn companion_health(shared: &Shared, now: Instant) -> Response<Full<Bytes>> {
    let healthy = shared
        .companion
        .as_ref()
        .is_some_and(|companion| companion.healthy.load(Ordering::Relaxed));
    match (shared.watchdog.is_alive(now), healthy) {
        (true, true) => page(StatusCode::OK, TEXT_TYPE, "ok\n"),
        (true, false) => page(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT_TYPE,
            "the companion process does not respond\n",
        ),
        (false, _) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, MAIN_LOOP_STALLED),
    }
}

/// Returns whether the client is on the node. `/state` contains Services and addresses of the whole
/// cluster, and actions change the node's behavior, so only local clients may use them.
fn is_on_node(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, registry) {
        Ok(()) => page(StatusCode::OK, OPEN_METRICS_TYPE, text),
        Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT_TYPE, format!("{error}\n")),
    }
}

async fn state(main_loop: &mpsc::Sender<StateRequest>) -> Response<Full<Bytes>> {
    let (reply, reply_receiver) = oneshot::channel();
    if main_loop.try_send(StateRequest(reply)).is_err() {
        return page(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT_TYPE,
            "too many clients of /state, or the main loop has ended\n",
        );
    }
    match timeout(STATE_REPLY_TIMEOUT, reply_receiver).await {
        Ok(Ok(Ok(json))) => page(StatusCode::OK, JSON_TYPE, json),
        Ok(Ok(Err(error))) => page(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT_TYPE,
            format!("state is not JSON: {error}\n"),
        ),
        Ok(Err(_)) | Err(_) => {
            page(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, "the main loop does not respond\n")
        }
    }
}

fn page(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;

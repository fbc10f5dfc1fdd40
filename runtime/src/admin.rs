//! The admin endpoint: `/healthz`, `/readyz`, `/metrics`, and for loopback clients `/state` and the
//! [`Action`] of a program. The kubelet's probes have a [`Listener`] of their own. Each listener
//! has a thread and a tokio runtime, so that it can tell that the main loop is stuck;
//! [`AdminServer`] owns those threads and ends them on drop.
//!
//! `/state` is asked of the main loop through a small queue, so the core needs no lock and nothing is serialised unasked.

mod listener;
mod places;

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

use self::listener::{Dropped, Listener};
use crate::vitals::Vitals;

/// `/state` requests that may wait for the main loop; one more is answered 503.
pub const STATE_REQUESTS_MAX: usize = 4;
/// How long a `/state` client waits for the main loop.
pub const STATE_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests for an [`Action`] that may wait; one more is answered 503.
pub const ACTION_REQUESTS_MAX: usize = 1;
/// How long the client of an [`Action`] waits for it: shorter than the connection may live.
pub const ACTION_TIMEOUT: Duration = Duration::from_secs(13);

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

/// The addresses at which the endpoint listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For everybody: all pages.
    pub admin: SocketAddr,
    /// For the kubelet: probes and hooks.
    pub probes: SocketAddr,
}

/// The running endpoint; dropping it ends its threads.
#[derive(Debug)]
pub struct AdminServer {
    /// `None` when the address could not be had.
    pub admin: Option<Listener>,
    /// `None` when the address could not be had.
    pub probes: Option<Listener>,
    /// Keeps the main loop's receiver open even when nothing listens.
    _state: mpsc::Sender<StateRequest>,
}

/// Starts the endpoint. The receiver is the main loop's: it answers each [`StateRequest`] when it
/// comes by.
///
/// An address that cannot be had is a WARN, and the program goes on without that listener.
#[must_use]
pub fn serve(
    addresses: Addresses,
    mut registry: Registry,
    vitals: Arc<Vitals>,
    action: Option<Action>,
    ward: Option<Ward>,
) -> (AdminServer, mpsc::Receiver<StateRequest>) {
    let (state, requests) = mpsc::channel(STATE_REQUESTS_MAX);
    let dropped = Dropped::new(&mut registry);
    let shared = Arc::new(Shared { registry, vitals, state: state.clone(), action, ward });
    let probes = Listener::start(addresses.probes, Offer::Probes, &shared, &dropped);
    let probes = probes.inspect_err(|error| {
        let listen = addresses.probes;
        warn!(%listen, %error, "no probes: the kubelet will restart this program; set --probe-listen to a free port");
    });
    let admin = Listener::start(addresses.admin, Offer::All, &shared, &dropped);
    let admin = admin.inspect_err(|error| {
        let listen = addresses.admin;
        warn!(%listen, %error, "no admin endpoint: no metrics; set --admin-listen to a free port");
    });
    (AdminServer { admin: admin.ok(), probes: probes.ok(), _state: state }, requests)
}

/// The pages that a listener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Offer {
    All,
    /// Without the pages that take long to make: a probe does not wait behind one.
    Probes,
}

impl Offer {
    /// The listener's name, as its thread and its metrics have it.
    const fn listener(self) -> &'static str {
        match self {
            Self::All => "admin",
            Self::Probes => "probes",
        }
    }
}

/// What all connections read.
struct Shared {
    registry: Registry,
    vitals: Arc<Vitals>,
    state: mpsc::Sender<StateRequest>,
    action: Option<Action>,
    ward: Option<Ward>,
}

async fn answer<B>(
    shared: &Shared,
    offer: Offer,
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
        "/metrics" | "/state" if offer == Offer::Probes => {
            page(StatusCode::NOT_FOUND, TEXT, "only probes are served here; see --admin-listen\n")
        }
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

//! The parts of the I/O layer that the speaker and the controller share.
//!
//! - [`flags`]: the flags of both programs.
//! - [`logs`]: structured logs on stderr.
//! - [`clock`]: the only reader of the monotonic clock.
//! - [`signals`]: SIGTERM and SIGINT as a future.
//! - [`watchdog`]: whether the main loop runs and whether the program is ready.
//! - [`admin`]: the pages `/healthz`, `/readyz`, `/metrics` and `/state`, on separate threads.
//! - [`connect`]: the client of the API server.
//! - [`api_health`]: logs once when the API server becomes unavailable, and once when it is
//!   available again.
//! - [`backoff`]: the delay before the next attempt after a failed request.
//! - [`metrics`]: creation of a metric together with its registration.
//! - [`log_once`]: a problem that lasts is logged once.
//! - [`reach`]: whether a host replies to TCP.
//! - [`refusal`]: explanations of status writes that the API server refuses.
//! - [`watch`]: sends the changes of a Kubernetes watch, as a few kinds of
//!   [`Change`](ferrolb_core::store::Change), to the program's own event queue.
//!
//! A program's `main` puts these together in this order:
//!
//! 1. flags, [`logs::init`], [`admin::registry`] and its metrics;
//! 2. [`api_health::ApiHealth::new`] and [`connect::connect`], which sends no request, so an
//!    unavailable API server is no error;
//! 3. [`admin::serve`] and one bounded event queue;
//! 4. one watch per kind ([`watch::WatchStarter`]), spawned on the program's `JoinSet`;
//! 5. its main loop, which sends heartbeats to [`watchdog::Watchdog`], replies to
//!    [`admin::StateRequest`]s and ends at [`signals::termination`].
//!
//! The whole crate is I/O layer: it decides nothing about addresses.

pub mod admin;
pub mod api_health;
pub mod backoff;
pub mod clock;
pub mod connect;
pub mod flags;
pub mod log_once;
pub mod logs;
pub mod metrics;
pub mod reach;
pub mod refusal;
pub mod signals;
pub mod watch;
pub mod watchdog;

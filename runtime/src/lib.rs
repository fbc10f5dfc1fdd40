//! What every FerroLB process does the same, and nothing that only one of them does.
//!
//! - [`flags`]: the flags both programs have.
//! - [`logs`]: structured logs on stderr.
//! - [`clock`]: the one reader of the monotonic clock.
//! - [`signals`]: SIGTERM and SIGINT as a future.
//! - [`vitals`]: whether the main loop is alive and the program ready.
//! - [`admin`]: `/healthz`, `/readyz`, `/metrics` and `/state`, on threads of its own.
//! - [`connect`]: the client of the API server; [`api_health`] says once when that server is away and when it is back.
//! - [`backoff`]: how long to wait before the next try. - [`refusal`]: refused status writes.
//! - [`watch`]: a Kubernetes watch as a few kinds of [`Change`](watch::Change) in the program's own event queue.
//!
//! A program's `main` puts these together in this order: flags, [`logs::init`], [`admin::registry`] and its metrics,
//! [`api_health::ApiHealth::new`], [`connect::connect`] (which asks the server nothing, so a missing server is no error),
//! [`admin::serve`], one bounded event queue, one [`watch::Watch`] a kind spawned on its `JoinSet`, then its main loop, which
//! beats [`vitals::Vitals`], answers [`admin::StateRequest`]s and ends at [`signals::termination`].
//!
//! All of it is shell: it does IO and decides nothing about addresses.

pub mod admin;
pub mod api_health;
pub mod backoff;
pub mod clock;
pub mod connect;
pub mod flags;
pub mod logs;
pub mod refusal;
pub mod signals;
pub mod vitals;
pub mod watch;

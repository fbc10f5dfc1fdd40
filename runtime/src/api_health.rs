//! The availability of the API server, logged once: one WARN when the server becomes unavailable,
//! one INFO when it is available again, and DEBUG for each failure in between. While an API server
//! starts or stops, it replies to only some requests. Therefore, not every short change is logged.
//!
//! [`ApiHealth`] is a layer under the client ([`ApiHealth::observe`]) and therefore sees every
//! request of every watch and writer. None of these needs to report or log an unreachable API
//! server. The client and its users share the value in an `Arc`; it has no task of its own.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ferrolb_proto::Instant;
use hyper::{Response, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tower::BoxError;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::metrics::registered;

/// The time after the log line "the API server responds again" during which a new failure is logged
/// only at DEBUG, because a starting API server refuses some requests.
pub const FAILURE_LOG_DELAY: Duration = Duration::from_secs(5);

/// The availability of the API server, according to the latest request. Before the first request,
/// the API server counts as available.
#[derive(Debug, Default)]
pub struct ApiHealth {
    availability: Mutex<Availability>,
    failures: Counter,
    responding: Gauge,
}

/// The availability, and the changes of the availability that were logged.
#[derive(Clone, Copy, Debug, Default)]
struct Availability {
    /// True if the latest request got no reply.
    unavailable: bool,
    /// True from the log line of a failure until the log line of the recovery.
    failure_logged: bool,
    /// The time at which a recovery was logged most recently.
    recovery_logged_at: Option<Instant>,
}

impl ApiHealth {
    /// Returns the initial state, in which the API server counts as available. Registers the
    /// metrics in `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let health = Self {
            availability: Mutex::default(),
            failures: registered(
                registry,
                "api_failures",
                "Requests to the API server without a response",
            ),
            responding: registered(
                registry,
                "api_answering",
                "1 if the API server responded to the last request",
            ),
        };
        health.responding.set(1);
        Arc::new(health)
    }

    /// Returns whether the API server did not reply to the latest request.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.availability.lock().unwrap_or_else(PoisonError::into_inner).unavailable
    }

    /// Records that a request got a reply.
    fn record_reply(&self, now: Instant) {
        let mut availability = self.availability.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut availability.unavailable) {
            self.responding.set(1);
        }
        if std::mem::take(&mut availability.failure_logged) {
            availability.recovery_logged_at = Some(now);
            info!("the API server responds again");
        }
    }

    /// Records that a request got no reply.
    fn record_failure(&self, why: &dyn Display, now: Instant) {
        self.failures.inc();
        let mut availability = self.availability.lock().unwrap_or_else(PoisonError::into_inner);
        availability.unavailable = true;
        self.responding.set(0);
        if availability.failure_logged
            || availability
                .recovery_logged_at
                .is_some_and(|recovered_at| now.since(recovered_at) < FAILURE_LOG_DELAY)
        {
            debug!(%why, "still no response from the API server");
        } else {
            availability.failure_logged = true;
            warn!(%why, "no response from the API server, retrying; announcements continue");
        }
    }

    /// Records the result of one request. A refusal of one request (403, 404, 409, 429, 500) counts
    /// as a reply. Rejected credentials (401) count as no reply, as do the gateway errors (502,
    /// 503, 504) of a load balancer without an API server behind it.
    pub fn observe<B>(&self, result: &Result<Response<B>, BoxError>) {
        self.observe_at(result, Clock::now());
    }

    fn observe_at<B>(&self, result: &Result<Response<B>, BoxError>, now: Instant) {
        match result {
            Ok(response) => match response.status() {
                StatusCode::UNAUTHORIZED => self.record_failure(
                    &"401: the API server does not accept the credentials of this program",
                    now,
                ),
                status @ (StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT) => {
                    self.record_failure(&status, now);
                }
                _ => self.record_reply(now),
            },
            Err(error) => self.record_failure(&ErrorChain(error.as_ref()), now),
        }
    }
}

/// An error and its causes on one line, such as "client error (Connect): tcp connect error:
/// Connection refused".
struct ErrorChain<'a>(&'a (dyn std::error::Error + 'static));

impl Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::logs::captured::logged;

    fn response(code: u16) -> Result<Response<()>, BoxError> {
        Ok(Response::builder().status(code).body(()).unwrap())
    }

    #[test]
    fn an_outage_and_its_end_are_logged_once_each() {
        let health = ApiHealth::new(&mut Registry::default());
        let refused = || Err(BoxError::from(io::Error::from(io::ErrorKind::ConnectionRefused)));
        let lines = logged(|| {
            health.observe(&response(200));
            for _ in 0..3 {
                health.observe::<()>(&refused());
            }
            assert!(health.is_unavailable());
            health.observe(&response(200));
            health.observe(&response(200));
            assert!(!health.is_unavailable());
        });
        assert_eq!(lines.len(), 2, "the log is {lines:#?}");
        assert!(
            lines[0].starts_with("WARN") && lines[0].contains("connection refused"),
            "the first log line is {}",
            lines[0]
        );
        assert!(lines[1].starts_with("INFO"), "the second log line is {}", lines[1]);
        assert_eq!(health.failures.get(), 3);
        assert_eq!(health.responding.get(), 1);
    }

    #[test]
    fn a_server_that_fails_intermittently_is_logged_once() {
        let health = ApiHealth::new(&mut Registry::default());
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let lines = logged(|| {
            for millis in 0..10 {
                health.observe_at(&response(503), at(millis));
                assert!(health.is_unavailable());
                health.observe_at(&response(403), at(millis));
                assert!(!health.is_unavailable());
            }
        });
        assert_eq!(lines.len(), 2, "the log is {lines:#?}");
        let lines = logged(|| {
            health.observe_at(&response(503), at(4_999));
            health.observe_at(&response(503), at(5_000));
            health.observe_at(&response(503), at(5_001));
        });
        assert_eq!(lines.len(), 1, "a lasting outage is logged: {lines:#?}");
    }

    #[test]
    fn a_refusal_counts_as_a_reply_and_a_gateway_error_does_not() {
        for (code, unavailable) in
            [(200, false), (403, false), (404, false), (409, false), (429, false), (500, false)]
                .into_iter()
                .chain([(401, true), (502, true), (503, true), (504, true)])
        {
            let health = ApiHealth::new(&mut Registry::default());
            health.observe(&response(code));
            assert_eq!(health.is_unavailable(), unavailable, "the status code is {code}");
        }
    }
}

//! Whether the API server answers, said once: one WARN when it stops, one INFO when it is back, DEBUG for each failure between.
//!
//! It sits under the client as a layer ([`ApiHealth::observe`]) and so sees every request of every watch and writer: nobody
//! reports to it, and none of them needs to log an unreachable server. Shared in an `Arc` by the client and by whoever
//! wants to know; no task of its own.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::{Response, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tower::BoxError;
use tracing::{debug, info, warn};

/// What the last requests say about the API server. It counts as answering until a request fails.
#[derive(Debug, Default)]
pub struct ApiHealth {
    away: AtomicBool,
    failures: Counter,
    answering: Gauge,
}

impl ApiHealth {
    /// An API server of which nothing bad is known, with its metrics in `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Arc<Self> {
        let health = Self::default();
        health.answering.set(1);
        registry.register("api_failures", "Requests to the API server without an answer", health.failures.clone());
        registry.register(
            "api_answering",
            "Whether the API server answered the last request",
            health.answering.clone(),
        );
        Arc::new(health)
    }

    /// Whether the API server did not answer the last request.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// A request got an answer.
    fn answered(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            self.answering.set(1);
            info!("the API server answers again");
        }
    }

    /// A request got none.
    fn failed(&self, why: &dyn Display) {
        self.failures.inc();
        if self.away.swap(true, Ordering::Relaxed) {
            debug!(%why, "still no answer from the API server");
        } else {
            self.answering.set(0);
            warn!(%why, "no answer from the API server; what is announced stays so, and it is tried again until it answers");
        }
    }

    /// Learns from the result of one request. Refusals of one request (403, 404, 409, 429, 500) are answers. Refused
    /// credentials and the gateway errors of a load balancer in front of no API server are not.
    pub fn observe<B>(&self, result: &Result<Response<B>, BoxError>) {
        match result {
            Ok(response) => match response.status() {
                StatusCode::UNAUTHORIZED => self.failed(&"401: it does not accept our credentials"),
                status @ (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) => {
                    self.failed(&status);
                }
                _ => self.answered(),
            },
            Err(error) => self.failed(&Chain(error.as_ref())),
        }
    }
}

/// An error and its causes on one line: "client error (Connect): tcp connect error: Connection refused".
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl Display for Chain<'_> {
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

    fn answer(code: u16) -> Result<Response<()>, BoxError> {
        Ok(Response::builder().status(code).body(()).unwrap())
    }

    #[test]
    fn an_absence_is_said_once_and_its_end_once_however_many_requests_fail() {
        let health = ApiHealth::new(&mut Registry::default());
        let refused = || Err(BoxError::from(io::Error::from(io::ErrorKind::ConnectionRefused)));
        let lines = logged(|| {
            health.observe(&answer(200));
            for _ in 0..3 {
                health.observe::<()>(&refused());
            }
            assert!(health.is_away());
            health.observe(&answer(200));
            health.observe(&answer(200));
            assert!(!health.is_away());
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].starts_with("WARN") && lines[0].contains("connection refused"), "{}", lines[0]);
        assert!(lines[1].starts_with("INFO"), "{}", lines[1]);
        assert_eq!(health.failures.get(), 3);
        assert_eq!(health.answering.get(), 1);
    }

    #[test]
    fn a_refusal_of_one_request_is_an_answer_and_a_gateway_error_is_none() {
        for (code, away) in [(200, false), (403, false), (404, false), (409, false), (429, false), (500, false)]
            .into_iter()
            .chain([(401, true), (502, true), (503, true), (504, true)])
        {
            let health = ApiHealth::new(&mut Registry::default());
            health.observe(&answer(code));
            assert_eq!(health.is_away(), away, "{code}");
        }
    }
}

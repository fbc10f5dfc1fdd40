//! Whether the API server answers, said once: one WARN when it stops, one INFO when it is back, DEBUG for each failure between.
//! A server that starts or stops answers some requests and not others; who comes and goes is not said each time.
//!
//! It sits under the client as a layer ([`ApiHealth::observe`]) and so sees every request of every watch and writer: nobody
//! reports to it, and none of them needs to log an unreachable server. Shared in an `Arc` by the client and by whoever
//! wants to know; no task of its own.

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

/// So long after a return was said, a new failure is not news: a server that starts refuses a request in between.
pub const NEWS_AFTER: Duration = Duration::from_secs(5);

/// What the last requests say about the API server. It counts as answering until a request fails.
#[derive(Debug, Default)]
pub struct ApiHealth {
    known: Mutex<Known>,
    failures: Counter,
    answering: Gauge,
}

/// What is known and what was said.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The last request got no answer.
    away: bool,
    /// That was said, and its end not yet.
    said: bool,
    /// When its last end was said.
    back: Option<Instant>,
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
        self.known.lock().unwrap_or_else(PoisonError::into_inner).away
    }

    /// A request got an answer.
    fn answered(&self, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut known.away) {
            self.answering.set(1);
        }
        if std::mem::take(&mut known.said) {
            known.back = Some(now);
            info!("the API server answers again");
        }
    }

    /// A request got none.
    fn failed(&self, why: &dyn Display, now: Instant) {
        self.failures.inc();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.away = true;
        self.answering.set(0);
        if known.said || known.back.is_some_and(|back| now.since(back) < NEWS_AFTER) {
            debug!(%why, "still no answer from the API server");
        } else {
            known.said = true;
            warn!(%why, "no answer from the API server; what is announced stays so, and it is tried again until it answers");
        }
    }

    /// Learns from the result of one request. Refusals of one request (403, 404, 409, 429, 500) are answers. Refused
    /// credentials and the gateway errors of a load balancer in front of no API server are not.
    pub fn observe<B>(&self, result: &Result<Response<B>, BoxError>) {
        self.learn(result, Clock::now());
    }

    fn learn<B>(&self, result: &Result<Response<B>, BoxError>, now: Instant) {
        match result {
            Ok(response) => match response.status() {
                StatusCode::UNAUTHORIZED => self.failed(&"401: it does not accept our credentials", now),
                status @ (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) => {
                    self.failed(&status, now);
                }
                _ => self.answered(now),
            },
            Err(error) => self.failed(&Chain(error.as_ref()), now),
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
    fn a_server_that_starts_and_answers_by_turns_is_said_to_be_back_once() {
        let health = ApiHealth::new(&mut Registry::default());
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let lines = logged(|| {
            for millis in 0..10 {
                health.learn(&answer(503), at(millis));
                assert!(health.is_away());
                health.learn(&answer(403), at(millis));
                assert!(!health.is_away());
            }
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        let lines = logged(|| {
            health.learn(&answer(503), at(4_999));
            health.learn(&answer(503), at(5_000));
            health.learn(&answer(503), at(5_001));
        });
        assert_eq!(lines.len(), 1, "an absence that lasts is said: {lines:#?}");
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

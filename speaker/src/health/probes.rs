//! Driver of the [`Prober`]: runs the Services' health checks against this node's endpoints, and
//! reports changes to the main loop.
//!
//! The driver is one task, owned by the main loop's `JoinSet`. The task owns one subtask per
//! running health check, within the prober's limit. Each subtask ends at the latest after the
//! timeout of its check. Cancelling the task closes all sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::CheckKind;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::health::prober::{
    ProbeConfig, ProbeId, ProbeTarget, Prober, ProberInput, ProberOutput, TARGETS_MAX,
};
use ferrolb_speaker_core::plan::HealthChecks;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use super::http::{HttpError, connect, get};
use crate::metrics::probes::{CheckOutcome, ProbeMetrics};

/// Maximum number of log lines per second about endpoints whose health has changed.
const LOG_LINES_PER_SECOND_MAX: u32 = 10;
/// The status codes that pass (RFC 9110 sections 15.3 and 15.4). A redirection counts as a response
/// and is not followed.
const PASSING_STATUS_CODES: std::ops::RangeInclusive<u16> = 200..=399;

/// Reasons why an endpoint fails its check. The messages are for operators of the endpoint.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("HTTP status {0}")]
    Status(u16),
}

impl CheckError {
    const fn outcome(&self) -> CheckOutcome {
        match self {
            Self::Status(_) => CheckOutcome::Status,
            Self::Http(HttpError::Refused) => CheckOutcome::Refused,
            Self::Http(HttpError::Timeout(_)) => CheckOutcome::Timeout,
            Self::Http(HttpError::Connect(_)) => CheckOutcome::Unreachable,
            Self::Http(HttpError::Path | HttpError::NotHttp(_) | HttpError::Body) => {
                CheckOutcome::NotHttp
            }
        }
    }
}

/// Runs the desired checks until the sender of `wanted` is dropped.
pub async fn run(
    mut wanted: watch::Receiver<HealthChecks>,
    events: mpsc::Sender<Event>,
    metrics: ProbeMetrics,
) {
    let mut driver = ProbeDriver {
        prober: Prober::default(),
        requests: JoinSet::new(),
        running: BTreeMap::new(),
        events,
        metrics,
        log_limiter: LogLimiter::default(),
        not_checked: 0,
    };
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let latest = wanted.borrow_and_update().clone();
                driver.set_targets(latest);
            }
            Some(ended) = driver.requests.join_next() => driver.handle_result(ended),
            () = Clock::sleep_until(driver.prober.deadline()) => driver.prober.tick(Clock::now()),
        }
        if driver.execute().await.is_err() {
            return;
        }
    }
}

/// Result of one health check.
struct EndedCheck {
    id: ProbeTarget,
    ticket: ProbeId,
    outcome: Result<(), CheckError>,
}

struct ProbeDriver {
    prober: Prober,
    requests: JoinSet<EndedCheck>,
    running: BTreeMap<ProbeId, AbortHandle>,
    events: mpsc::Sender<Event>,
    metrics: ProbeMetrics,
    log_limiter: LogLimiter,
    /// Number of endpoints that are not checked because of their addresses.
    not_checked: usize,
}

impl ProbeDriver {
    fn set_targets(&mut self, probes: HealthChecks) {
        let over_limit_before = self.prober.over_limit();
        let disallowed_before = std::mem::replace(&mut self.not_checked, probes.disallowed);
        self.prober.handle(ProberInput::Targets(probes.targets), Clock::now());
        self.metrics.disallowed.set(gauge(probes.disallowed));
        self.metrics.slowed.set(gauge(probes.slowed));
        if over_limit_before == 0 && self.prober.over_limit() > 0 {
            let count = self.prober.over_limit();
            warn!(
                count,
                "endpoints are not checked: this node has more than {TARGETS_MAX}. Only their \
                 readiness counts"
            );
        }
        if disallowed_before == 0 && probes.disallowed > 0 {
            warn!(
                count = probes.disallowed,
                "endpoints are not checked because of their addresses: see \
                 status.uncheckedHealthChecks of this node's SpeakerStatus"
            );
        }
    }

    fn handle_result(&mut self, ended: Result<EndedCheck, JoinError>) {
        let EndedCheck { id, ticket, outcome } = match ended {
            Ok(response) => response,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The prober cancelled this health check.
            Err(_) => return,
        };
        self.running.remove(&ticket);
        self.metrics
            .checks(outcome.as_ref().map_or_else(CheckError::outcome, |()| CheckOutcome::Passed))
            .inc();
        let outcome = outcome.map_err(|error| error.to_string().into());
        self.prober.handle(ProberInput::Result { id, ticket, outcome }, Clock::now());
    }

    /// Executes all outputs of the prober.
    async fn execute(&mut self) -> Result<(), mpsc::error::SendError<Event>> {
        while let Some(output) = self.prober.poll() {
            match output {
                ProberOutput::Start { id, ticket, check } => {
                    let check_task = async move {
                        EndedCheck { outcome: run_check(id.endpoint, &check).await, id, ticket }
                    };
                    self.running.insert(ticket, self.requests.spawn(check_task));
                }
                ProberOutput::Stop(ticket) => {
                    self.running.remove(&ticket).iter().for_each(AbortHandle::abort)
                }
                ProberOutput::Changed { id, failing } => {
                    self.log_change(&id, failing.as_deref());
                    self.events.send(Event::EndpointHealth { id, failing }).await?;
                }
                ProberOutput::Removed(id) => {
                    self.events.send(Event::EndpointHealth { id, failing: None }).await?
                }
            }
        }
        self.metrics.targets.set(gauge(self.prober.targets()));
        self.metrics.failing.set(gauge(self.prober.failing()));
        self.metrics.over_limit.set(gauge(self.prober.over_limit()));
        Ok(())
    }

    fn log_change(&mut self, id: &ProbeTarget, failing: Option<&str>) {
        if !self.log_limiter.allow(Clock::now()) {
            self.metrics.unlogged.inc();
        } else if let Some(why) = failing {
            info!("endpoint {id} fails its health check: {why}");
        } else {
            info!("endpoint {id} passes its health check again");
        }
    }
}

/// Sends one health check to an endpoint, within the timeout of the check.
async fn run_check(endpoint: SocketAddr, check: &ProbeConfig) -> Result<(), CheckError> {
    match &check.kind {
        CheckKind::Tcp => {
            let connecting = timeout(check.timeout, connect(endpoint));
            connecting.await.unwrap_or(Err(HttpError::Timeout(check.timeout)))?;
        }
        CheckKind::Http { path } => {
            let response = get(endpoint, path, None, check.timeout).await?;
            if !PASSING_STATUS_CODES.contains(&response.status) {
                return Err(CheckError::Status(response.status));
            }
        }
    }
    Ok(())
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Rate limit of log lines: the number of lines in the current second.
#[derive(Debug, Default)]
struct LogLimiter {
    since: Instant,
    count: u32,
}

impl LogLimiter {
    /// Counts one more log line, and returns whether the line may be written.
    fn allow(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= LOG_LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests;

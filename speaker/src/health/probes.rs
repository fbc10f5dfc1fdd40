//! The driver of the [`Prober`]: asks this node's endpoints what their Services' health checks say, and tells the main loop what changes.
//!
//! One task, owned by the main loop's `JoinSet`, which owns the tasks that ask: one a question, never more than the machine allows,
//! each over after its check's timeout. Cancelling it closes all their sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ferrolb_proto::facts::CheckKind;
use ferrolb_proto::health::prober::{Check, Input, Output, Prober, TARGETS_MAX, TargetId, Ticket};
use ferrolb_proto::{Instant, Machine};
use ferrolb_runtime::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use super::http::{HttpError, connect, get};
use crate::event::Event;
use crate::metrics::probes::{Outcome, ProbeMetrics};
use crate::plan::Probes;

/// The most lines of the log in one second about endpoints that changed.
const LINES_PER_SECOND_MAX: u32 = 10;
/// The status codes that pass (RFC 9110 sections 15.3 and 15.4): a redirection is an answer, and nobody follows it.
const PASSING: std::ops::RangeInclusive<u16> = 200..=399;

/// Why an endpoint does not pass. The messages are for whoever runs it.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("it answers {0}")]
    Status(u16),
}

impl CheckError {
    const fn outcome(&self) -> Outcome {
        match self {
            Self::Status(_) => Outcome::Status,
            Self::Http(HttpError::Refused) => Outcome::Refused,
            Self::Http(HttpError::Timeout(_)) => Outcome::Timeout,
            Self::Http(HttpError::Connect(_)) => Outcome::Unreachable,
            Self::Http(HttpError::Path | HttpError::Garbage(_) | HttpError::Body) => Outcome::NotHttp,
        }
    }
}

/// Asks what is wanted until nobody wants anything any more.
pub async fn run(mut wanted: watch::Receiver<Probes>, events: mpsc::Sender<Event>, metrics: ProbeMetrics) {
    let mut driver = Driver {
        prober: Prober::default(),
        questions: JoinSet::new(),
        running: BTreeMap::new(),
        events,
        metrics,
        lines: Lines::default(),
        refused: 0,
    };
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let latest = wanted.borrow_and_update().clone();
                driver.want(latest);
            }
            Some(ended) = driver.questions.join_next() => driver.take(ended),
            () = Clock::sleep_until(driver.prober.deadline()) => driver.prober.tick(Clock::now()),
        }
        if driver.act().await.is_err() {
            return;
        }
    }
}

/// What came of one question.
struct Answer {
    id: TargetId,
    ticket: Ticket,
    outcome: Result<(), CheckError>,
}

struct Driver {
    prober: Prober,
    questions: JoinSet<Answer>,
    running: BTreeMap<Ticket, AbortHandle>,
    events: mpsc::Sender<Event>,
    metrics: ProbeMetrics,
    lines: Lines,
    /// How many endpoints have addresses that are not asked.
    refused: usize,
}

impl Driver {
    fn want(&mut self, probes: Probes) {
        let over_before = self.prober.over_limit();
        let refused_before = std::mem::replace(&mut self.refused, probes.refused);
        self.prober.handle(Input::Targets(probes.targets), Clock::now());
        self.metrics.refused.set(gauge(probes.refused));
        self.metrics.slowed.set(gauge(probes.slowed));
        if over_before == 0 && self.prober.over_limit() > 0 {
            let count = self.prober.over_limit();
            warn!(
                count,
                "endpoints are not checked: this node has more than {TARGETS_MAX}; readiness alone decides about them"
            );
        }
        if refused_before == 0 && probes.refused > 0 {
            warn!(
                count = probes.refused,
                "endpoints are not checked because of their addresses: see status.unchecked of this node's SpeakerStatus"
            );
        }
    }

    fn take(&mut self, ended: Result<Answer, JoinError>) {
        let Answer { id, ticket, outcome } = match ended {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // It was withdrawn.
            Err(_) => return,
        };
        self.running.remove(&ticket);
        self.metrics.checks(outcome.as_ref().map_or_else(CheckError::outcome, |()| Outcome::Passed)).inc();
        let outcome = outcome.map_err(|error| error.to_string().into());
        self.prober.handle(Input::Result { id, ticket, outcome }, Clock::now());
    }

    /// Does all that the machine wants.
    async fn act(&mut self) -> Result<(), mpsc::error::SendError<Event>> {
        while let Some(output) = self.prober.poll() {
            match output {
                Output::Start { id, ticket, check } => {
                    let asking = async move { Answer { outcome: ask(id.endpoint, &check).await, id, ticket } };
                    self.running.insert(ticket, self.questions.spawn(asking));
                }
                Output::Stop(ticket) => self.running.remove(&ticket).iter().for_each(AbortHandle::abort),
                Output::Changed { id, failing } => {
                    self.say(&id, failing.as_deref());
                    self.events.send(Event::Probe { id, failing }).await?;
                }
                Output::Forgotten(id) => self.events.send(Event::Probe { id, failing: None }).await?,
            }
        }
        self.metrics.targets.set(gauge(self.prober.targets()));
        self.metrics.failing.set(gauge(self.prober.failing()));
        self.metrics.over_limit.set(gauge(self.prober.over_limit()));
        Ok(())
    }

    fn say(&mut self, id: &TargetId, failing: Option<&str>) {
        if !self.lines.allow(Clock::now()) {
            self.metrics.unsaid.inc();
        } else if let Some(why) = failing {
            info!("endpoint {id} fails its health check: {why}");
        } else {
            info!("endpoint {id} passes its health check again");
        }
    }
}

/// Asks one endpoint, within the check's timeout.
async fn ask(endpoint: SocketAddr, check: &Check) -> Result<(), CheckError> {
    match &check.kind {
        CheckKind::Tcp => {
            let connecting = timeout(check.timeout, connect(endpoint));
            connecting.await.unwrap_or(Err(HttpError::Timeout(check.timeout)))?;
        }
        CheckKind::Http { path } => {
            let answer = get(endpoint, path, None, check.timeout).await?;
            if !PASSING.contains(&answer.status) {
                return Err(CheckError::Status(answer.status));
            }
        }
    }
    Ok(())
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// How many lines the log has had in this second.
#[derive(Debug, Default)]
struct Lines {
    since: Instant,
    count: u32,
}

impl Lines {
    /// Whether there is room for one more.
    fn allow(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests;

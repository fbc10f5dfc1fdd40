//! Asks kube-proxy how it is, each `--health-interval`. One task, owned by the main loop's `JoinSet`, with the machine that judges;
//! only a new judgement becomes an event, so that a node at rest wakes nobody. Cancelling it is safe.

mod answers;

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use ferrolb_proto::health::data_path::{Config, DataPath, Input, Judgement, Livez, Mode, Round};
use ferrolb_proto::{Instant, Machine};
use ferrolb_runtime::clock::Clock;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::http::{HttpError, get};
use crate::event::Event;
use crate::metrics::DataPathMetrics;
use crate::plan::Questions;

/// How long an answer may take. kube-proxy is on this node; one that takes longer is stuck.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The longest answer, in bytes: kube-proxy's have 300.
const BODY_MAX: usize = 16 * 1024;

/// The driver.
#[derive(Debug)]
pub struct ProxyHealth {
    config: Config,
    interval: Duration,
    metrics: DataPathMetrics,
    events: mpsc::Sender<Event>,
    said: Judgement,
}

impl ProxyHealth {
    /// A driver that asks every `interval`, or whenever the last round is over, where that takes longer.
    #[must_use]
    pub fn new(config: Config, interval: Duration, metrics: DataPathMetrics, events: mpsc::Sender<Event>) -> Self {
        Self { config, interval, metrics, events, said: Judgement::default() }
    }

    /// Asks what `questions` says, at once and again and again. Ends when its sender is gone.
    pub async fn run(mut self, mut questions: watch::Receiver<Questions>) {
        let mut machine = DataPath::new(self.config, Clock::now());
        let (mut next, mut turn) = (Clock::now(), 0);
        questions.mark_changed();
        loop {
            let mut asked = pin!(asked(questions.clone(), self.config.mode, next, turn));
            let (started, round) = loop {
                self.say(&mut machine).await;
                tokio::select! {
                    asked = &mut asked => break asked,
                    changed = questions.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let situation = questions.borrow_and_update().situation;
                        machine.handle(Input::Situation(situation), Clock::now());
                    }
                    () = Clock::sleep_until(machine.deadline()) => machine.tick(Clock::now()),
                }
            };
            self.metrics.count(round.outcome(machine.situation().needed));
            machine.handle(Input::Round(round), Clock::now());
            (next, turn) = (started + self.interval, turn + 1);
        }
    }

    async fn say(&mut self, machine: &mut DataPath) {
        while let Some(judgement) = machine.poll() {
            if judgement.state != self.said.state {
                info!(state = ?judgement.state, why = &*judgement.message, "data path of this node");
            }
            self.metrics.healthy.set(i64::from(!judgement.unhealthy()));
            self.said = judgement.clone();
            // Nobody listens when the process ends: no matter then.
            let _ = self.events.send(Event::DataPath(judgement)).await;
        }
    }
}

/// Asks one round when it is due and somebody can be asked, and says when it was begun.
async fn asked(mut questions: watch::Receiver<Questions>, mode: Mode, due: Instant, turn: usize) -> (Instant, Round) {
    if mode == Mode::Off {
        return std::future::pending().await;
    }
    Clock::sleep_until(Some(due)).await;
    let known = questions.wait_for(|questions| !questions.servers.is_empty()).await.map(|known| known.clone());
    let started = Clock::now();
    let round = match known {
        Ok(known) => ask(&known, turn).await,
        // Who wants to know is gone, and the driver with it.
        Err(_) => None,
    };
    match round {
        Some(round) => (started, round),
        None => std::future::pending().await,
    }
}

/// None: there is no server.
async fn ask(questions: &Questions, turn: usize) -> Option<Round> {
    let mut refused = None;
    for &server in &questions.servers {
        let round = ask_server(server).await;
        if round.livez != Livez::Refused {
            return Some(round);
        }
        refused = refused.or(Some(round));
    }
    let ports = &questions.witnesses;
    let witness = match ports.get(turn % ports.len().max(1)) {
        Some(&port) => get(port, "/", Some(BODY_MAX), TIMEOUT).await.ok(),
        None => None,
    };
    refused.map(|round| Round { witness: witness.and_then(|answer| answers::witness(&answer)), ..round })
}

async fn ask_server(server: SocketAddr) -> Round {
    let (livez, healthz) =
        tokio::join!(get(server, "/livez", Some(BODY_MAX), TIMEOUT), get(server, "/healthz", Some(BODY_MAX), TIMEOUT),);
    let livez = match livez {
        Ok(answer) => answers::livez(&answer),
        Err(HttpError::Refused) => Livez::Refused,
        Err(error) => Livez::Failed(error.to_string().into()),
    };
    Round { server, livez, eligible: healthz.ok().and_then(|answer| answers::eligible(&answer)), witness: None }
}

#[cfg(test)]
mod tests;

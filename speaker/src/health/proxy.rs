//! Driver that checks kube-proxy's health every `--health-interval`. The driver is one task, owned
//! by the main loop's `JoinSet`. The task owns the [`KubeProxyMonitor`], which evaluates the
//! responses. Only a changed judgement becomes an event, so that unchanged health does not wake the
//! main loop. Cancelling the task is safe.

pub(super) mod responses;

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_proto::Instant;
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::health::kube_proxy::{
    CheckRound, KubeProxyConfig, KubeProxyHealth, KubeProxyInput, KubeProxyMode, KubeProxyMonitor,
    LivezResult,
};
use ferrolb_speaker_core::plan::ProxyTargets;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tracing::info;

use super::http::{HttpError, get};
use crate::metrics::ProxyHealthMetrics;

/// Timeout of one request. kube-proxy runs on this node, so a slower response means that kube-proxy
/// is stalled, or gets little processor time.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum length of a response's content, in bytes; kube-proxy's responses have 300.
pub(super) const BODY_MAX: usize = 16 * 1024;

/// Driver of the kube-proxy health checks.
#[derive(Debug)]
pub struct ProxyHealthDriver {
    config: KubeProxyConfig,
    interval: Duration,
    metrics: ProxyHealthMetrics,
    events: mpsc::Sender<Event>,
    last: KubeProxyHealth,
}

impl ProxyHealthDriver {
    /// Creates a driver that runs a round of health checks every `interval`. If a round takes
    /// longer, the next one starts as soon as it ends.
    #[must_use]
    pub fn new(
        config: KubeProxyConfig,
        interval: Duration,
        metrics: ProxyHealthMetrics,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self { config, interval, metrics, events, last: KubeProxyHealth::default() }
    }

    /// Checks the targets in `targets`, at once and then periodically. Ends when the sender of
    /// `targets` is dropped.
    pub async fn run(mut self, mut targets: watch::Receiver<ProxyTargets>) {
        let mut machine = KubeProxyMonitor::new(self.config, Clock::now());
        let (mut next, mut round_number) = (Clock::now(), 0);
        targets.mark_changed();
        loop {
            let mut current_round =
                pin!(next_round(targets.clone(), self.config.mode, next, round_number));
            let (started, round) = loop {
                self.publish(&mut machine).await;
                tokio::select! {
                    current_round = &mut current_round => break current_round,
                    changed = targets.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let context = targets.borrow_and_update().context;
                        machine.handle(KubeProxyInput::Context(context), Clock::now());
                    }
                    () = Clock::sleep_until(machine.deadline()) => machine.tick(Clock::now()),
                }
            };
            self.metrics.count(round.outcome(machine.context().needed));
            machine.handle(KubeProxyInput::Round(round), Clock::now());
            (next, round_number) = (started + self.interval, round_number + 1);
        }
    }

    async fn publish(&mut self, machine: &mut KubeProxyMonitor) {
        while let Some(judgement) = machine.poll() {
            if judgement.state != self.last.state {
                info!(state = ?judgement.state, why = &*judgement.message, "kube-proxy health of \
                                                                            this node");
            }
            self.metrics.healthy.set(i64::from(!judgement.unhealthy()));
            self.last = judgement.clone();
            // The receiver is gone only when the process ends, so a lost event does not matter.
            let _ = self.events.send(Event::ProxyHealth(judgement)).await;
        }
    }
}

/// Runs one round of health checks, once it is due and an address of kube-proxy is known. Returns
/// the round with its start time. Waits forever if the health check is off.
async fn next_round(
    mut targets: watch::Receiver<ProxyTargets>,
    mode: KubeProxyMode,
    due: Instant,
    round_number: usize,
) -> (Instant, CheckRound) {
    if mode == KubeProxyMode::Off {
        return std::future::pending().await;
    }
    Clock::sleep_until(Some(due)).await;
    let known =
        targets.wait_for(|targets| !targets.servers.is_empty()).await.map(|known| known.clone());
    let started = Clock::now();
    let round = match known {
        Ok(known) => run_round(&known, round_number).await,
        // The sender of `targets` is dropped, and the driver ends.
        Err(_) => None,
    };
    match round {
        Some(round) => (started, round),
        None => std::future::pending().await,
    }
}

/// Runs one round of health checks. Returns none if `targets` contains no server.
async fn run_round(targets: &ProxyTargets, round_number: usize) -> Option<CheckRound> {
    let mut refused = None;
    for &server in &targets.servers {
        let round = check_server(server).await;
        if round.livez != LivezResult::Refused {
            return Some(round);
        }
        refused = refused.or(Some(round));
    }
    let ports = &targets.health_check_node_ports;
    let node_port_response = match ports.get(round_number % ports.len().max(1)) {
        Some(&port) => get(port, "/", Some(BODY_MAX), TIMEOUT).await.ok(),
        None => None,
    };
    refused.map(|round| CheckRound {
        node_port_healthy: node_port_response
            .and_then(|response| responses::proxy_healthy(&response)),
        ..round
    })
}

async fn check_server(server: SocketAddr) -> CheckRound {
    let time = Timestamp::now();
    let (livez, healthz) = tokio::join!(
        get(server, "/livez", Some(BODY_MAX), TIMEOUT),
        get(server, "/healthz", Some(BODY_MAX), TIMEOUT),
    );
    let livez = match livez {
        Ok(response) => responses::livez(&response),
        Err(HttpError::Refused) => LivezResult::Refused,
        Err(error @ HttpError::Timeout(_)) => LivezResult::TimedOut(error.to_string().into()),
        Err(error) => LivezResult::Failed(error.to_string().into()),
    };
    CheckRound {
        time,
        server,
        livez,
        eligible: healthz.ok().and_then(|response| responses::eligible(&response)),
        node_port_healthy: None,
    }
}

#[cfg(test)]
mod tests;

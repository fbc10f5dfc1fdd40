//! The tasks that exist only if the speaker announces by BGP (flag `--gobgp`). The main loop owns
//! the tasks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrolb_runtime::admin::{Action, ActionRequest, Companion};
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::plan::BgpConfig;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::driver;
use crate::flags::Flags;
use crate::metrics::{BgpMetrics, GobgpMetrics, bgp_metrics};

/// The inputs of the tasks, apart from the desired values that the main loop sends.
pub(crate) struct BgpTasks {
    /// Path of gobgpd's socket.
    socket: String,
    metrics: GobgpMetrics,
    handovers: mpsc::Receiver<ActionRequest>,
    gobgp_responsive: Arc<AtomicBool>,
}

/// The parts of BGP that the speaker's HTTP listeners serve or the main loop updates.
pub(crate) struct BgpEndpoints {
    /// HTTP action that stops gobgpd so that routers keep its routes for the next gobgpd.
    pub(crate) handover: Action,
    /// gobgpd, whose liveness probe the speaker serves.
    pub(crate) companion: Companion,
    /// Metrics that the main loop updates.
    pub(crate) metrics: BgpMetrics,
}

impl BgpTasks {
    /// Returns the inputs of the tasks and the endpoints; `None` without the flag `--gobgp`.
    pub(crate) fn new(flags: &Flags, registry: &mut Registry) -> Option<(Self, BgpEndpoints)> {
        let socket = flags.gobgp.clone()?;
        let (main_loop_metrics, metrics) = bgp_metrics(registry);
        let (handover, handovers) = Action::new(driver::HANDOVER_PATH);
        let (companion, gobgp_responsive) = Companion::new(driver::HEALTHZ_PATH);
        Some((
            Self { socket, metrics, handovers, gobgp_responsive },
            BgpEndpoints { handover, companion, metrics: main_loop_metrics },
        ))
    }

    /// Starts the task. `config` receives the latest desired configuration from the main loop.
    pub(crate) fn spawn(
        self,
        config: watch::Receiver<Option<BgpConfig>>,
        events: &mpsc::Sender<Event>,
        tasks: &mut JoinSet<()>,
    ) {
        tasks.spawn(driver::run(
            (self.socket, self.gobgp_responsive),
            config,
            self.handovers,
            events.clone(),
            self.metrics,
        ));
    }
}

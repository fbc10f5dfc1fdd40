//! The parts of the speaker that exist only if it announces by BGP (flag `--gobgp`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ferrolb_runtime::admin::{Action, ActionRequest, Companion};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use crate::flags::Flags;
use crate::metrics::{BgpMetrics, GobgpMetrics, bgp_metrics};

/// HTTP path of the handover action. The `preStop` hook of gobgpd's container requests it. The
/// speaker then stops gobgpd in such a way that routers keep its routes for the next gobgpd.
const HANDOVER_PATH: &str = "/gobgp/handover";
/// HTTP path of gobgpd's liveness probe, which the speaker serves. gobgpd is healthy while it
/// replies to the speaker and the speaker's main loop runs.
const HEALTHZ_PATH: &str = "/gobgp/healthz";

/// Inputs of the BGP driver, apart from the desired configuration.
pub struct DriverInputs {
    /// Path of gobgpd's socket.
    pub(super) path: String,
    /// True while gobgpd replies.
    pub(super) responsive: Arc<AtomicBool>,
    pub(super) handovers: mpsc::Receiver<ActionRequest>,
    pub(super) metrics: GobgpMetrics,
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

impl DriverInputs {
    /// Returns the inputs of the driver and the endpoints; `None` without the flag `--gobgp`.
    pub(crate) fn new(flags: &Flags, registry: &mut Registry) -> Option<(Self, BgpEndpoints)> {
        let path = flags.gobgp.clone()?;
        let (main_loop_metrics, metrics) = bgp_metrics(registry);
        let (handover, handovers) = Action::new(HANDOVER_PATH);
        let (companion, responsive) = Companion::new(HEALTHZ_PATH);
        Some((
            Self { path, responsive, handovers, metrics },
            BgpEndpoints { handover, companion, metrics: main_loop_metrics },
        ))
    }
}

//! Logs each refusal of a watch by the API server with its remedy, and stores it in the program's
//! [`Watchdog`] for `/readyz`. A watch owns one [`WatchErrors`] and reports each failure to it. The
//! `Watchdog` outlives the watch, so a watch that starts again does not log the same refusal again.
//! [`crate::api_health`] logs an API server that does not reply at all.

use std::sync::Arc;

use ferrolb_proto::Instant;
use tracing::{debug, info, warn};

use crate::watchdog::Watchdog;

/// The errors of one watch.
pub(super) struct WatchErrors {
    what: &'static str,
    watchdog: Arc<Watchdog>,
    /// True if the watch works and the log and the `Watchdog` already report it. False in a new
    /// watch, because the previous one may have ended with a refusal.
    working: bool,
}

impl WatchErrors {
    pub(super) const fn new(what: &'static str, watchdog: Arc<Watchdog>) -> Self {
        Self { what, watchdog, working: false }
    }

    pub(super) fn record_failure(&mut self, error: &kube::Error, now: Instant) {
        let what = self.what;
        let Some((code, why)) = refusal(error) else {
            debug!(what, %error, "watch interrupted, trying again");
            return;
        };
        self.working = false;
        let remedy = match code {
            403 => {
                "the ServiceAccount needs list and watch on it: apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
            }
            404 => {
                "the cluster does not have this kind: apply FerroLB's CustomResourceDefinitions, as in deploy/install.yaml or the Helm chart"
            }
            _ => "see the API server's log",
        };
        if self.watchdog.refused(what, code, format!("{why}: {remedy}"), now) {
            warn!(what, code, why, "watch rejected, retrying: {remedy}");
        } else {
            debug!(what, %error, "watch still rejected, retrying");
        }
    }

    pub(super) fn record_success(&mut self) {
        if !std::mem::replace(&mut self.working, true) && self.watchdog.accepted(self.what) {
            info!(what = self.what, "watch established");
        }
    }
}

/// Returns the HTTP status and the message of a reply that requires action by an operator, or
/// `None` for another error. The status is 0 for a reply that could not be decoded.
pub(super) fn refusal(error: &kube::Error) -> Option<(u16, String)> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`api_health` logs an API server that does not respond"
    )]
    match error {
        kube::Error::Api(status) => match status.code {
            // `api_health` logs 401 and gateway errors. 410 only means that the API server no
            // longer stores the resource version, and 429 that it is busy.
            401 | 410 | 429 | 502..=504 => None,
            code => Some((code, status.message.clone())),
        },
        kube::Error::SerdeError(error) => Some((0, error.to_string())),
        _ => None,
    }
}

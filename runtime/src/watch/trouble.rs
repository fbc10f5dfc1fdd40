//! A watch that the API server refuses: said in the log with what to do about it, and kept for whoever asks why the program is not ready.
//! Each watch has one; it is told of each failure. What was said is kept in the program's vitals, as watches are begun anew. A server that does not answer at all is [`crate::api_health`]'s to say.

use std::sync::Arc;

use ferrolb_proto::Instant;
use tracing::{debug, info, warn};

use crate::vitals::Vitals;

/// What becomes of one watch.
pub(super) struct Trouble {
    what: &'static str,
    vitals: Arc<Vitals>,
    /// It works, and that was said. A watch that is begun anew does not know of the one before.
    works: bool,
}

impl Trouble {
    pub(super) const fn new(what: &'static str, vitals: Arc<Vitals>) -> Self {
        Self { what, vitals, works: false }
    }

    pub(super) fn met(&mut self, error: &kube::Error, now: Instant) {
        let what = self.what;
        let Some((code, why)) = refusal(error) else {
            debug!(what, %error, "watch interrupted, trying again");
            return;
        };
        self.works = false;
        let remedy = match code {
            403 => {
                "the ServiceAccount needs list and watch on it: apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
            }
            404 => {
                "the cluster does not have this kind: apply FerroLB's CustomResourceDefinitions, as in deploy/install.yaml or the Helm chart"
            }
            _ => "see the API server's log",
        };
        if self.vitals.refused(what, code, format!("{why}: {remedy}"), now) {
            warn!(what, code, why, "the API server does not let us watch; {remedy}; it is tried again until it works");
        } else {
            debug!(what, %error, "watch still refused, trying again");
        }
    }

    pub(super) fn over(&mut self) {
        if !std::mem::replace(&mut self.works, true) && self.vitals.granted(self.what) {
            info!(what = self.what, "the watch works now");
        }
    }
}

/// The HTTP status and reason of an answer that a person has to do something about.
pub(super) fn refusal(error: &kube::Error) -> Option<(u16, String)> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a server that does not answer is `api_health`'s to say")]
    match error {
        kube::Error::Api(status) => match status.code {
            // 401 and gateway errors are said by `api_health`; 410 only means that the server
            // forgot where we were.
            401 | 410 | 429 | 502..=504 => None,
            code => Some((code, status.message.clone())),
        },
        kube::Error::SerdeError(error) => Some((0, error.to_string())),
        _ => None,
    }
}

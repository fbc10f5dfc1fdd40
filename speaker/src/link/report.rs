//! What a link's thread says of itself: its report to the main loop, and its metrics. Off the answer path.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::claim::{Claims, Counts, Trouble};
use tokio::sync::watch;

use super::Progress;
use crate::event::LinkReport;
use crate::metrics::{Drop, LinkMetrics};

/// What was said last.
#[derive(Debug)]
pub(super) struct Reporter<'a> {
    progress: &'a watch::Sender<Progress>,
    metrics: LinkMetrics,
    counted: Counts,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(progress: &'a watch::Sender<Progress>, metrics: LinkMetrics) -> Self {
        Self { progress, metrics, counted: Counts::default() }
    }

    /// Brings the metrics up to the machine's counters.
    pub(super) fn count(&mut self, claims: &Claims) {
        let (now, before, metrics) = (claims.counts(), self.counted, &self.metrics);
        metrics.suspicions.inc_by(now.suspicions - before.suspicions);
        metrics.refuted.inc_by(now.refuted - before.refuted);
        metrics.deaths.inc_by(now.deaths - before.deaths);
        metrics.proxied.inc_by(now.proxied - before.proxied);
        metrics.fences.inc_by(now.fences - before.fences);
        metrics.deaf.inc_by(now.deaf - before.deaf);
        metrics.conflicts.inc_by(now.conflicts - before.conflicts);
        metrics.strangers.inc_by(now.strangers - before.strangers);
        metrics.kernel_answers.inc_by(now.kernel_answers - before.kernel_answers);
        metrics.dropped(Drop::Stale).inc_by(now.stale_frames - before.stale_frames);
        metrics.dropped(Drop::Unproven).inc_by(now.unproven - before.unproven);
        metrics.dropped(Drop::OwnName).inc_by(now.own_name - before.own_name);
        metrics.dropped(Drop::Limit).inc_by(now.over_limit - before.over_limit);
        self.counted = now;
    }

    /// Says what is done on the link, if it is not what was said before.
    pub(super) fn report(&self, claims: &Claims, left: bool) {
        self.progress.send_if_modified(|progress| {
            let Ok(before) = progress else { return false };
            let (deaf, muted, hears_checked) = (claims.is_deaf(), claims.is_muted(), claims.hears_checked());
            let same = (before.left, before.deaf, before.muted, before.hears_checked)
                == (left, deaf, muted, hears_checked)
                && before.heard.iter().map(|name| &**name).eq(claims.heard())
                && before.held.iter().copied().eq(claims.held())
                && before.troubles.iter().cloned().eq(claims.troubles());
            if same {
                return false;
            }
            let heard: Vec<Box<str>> = claims.heard().map(Into::into).collect();
            let held: Arc<[IpAddr]> = claims.held().collect();
            let troubles: Arc<[Trouble]> = claims.troubles().collect();
            self.metrics.heard.set(i64::try_from(heard.len()).unwrap_or(i64::MAX));
            self.metrics.owned.set(i64::try_from(held.len()).unwrap_or(i64::MAX));
            self.metrics.muted.set(muted.into());
            *progress = Ok(LinkReport { heard, held, left, deaf, muted, hears_checked, troubles });
            true
        });
    }
}

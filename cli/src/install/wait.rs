//! Waits until the objects of an installation have an effect, and shows the progress. The caller
//! reads the objects, and reports their changes.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::progress::Progress;

/// Maximum time without a change of the progress.
const CHANGE_MAX: Duration = Duration::from_secs(120);
/// Time from a change to the read of the objects, so that simultaneous changes cause one read.
const SETTLE: Duration = Duration::from_millis(200);
/// Maximum time of one read.
const READ_MAX: Duration = Duration::from_secs(10);
/// Time from a failure to the next attempt.
pub const RETRY: Duration = Duration::from_secs(1);

/// Advice about nodes that are not Ready. The limit `maxUnavailable` counts their pods.
const NODES: &str = "Kubernetes may replace no pod until these nodes are Ready, so delete the Node \
                     of each one that does not return; ";
const NO_REPLY: &str = "the API server does not reply";

/// Waits until all of `what` have an effect. `changes` has an item after each change, and `next` is
/// the next command after the limit.
///
/// # Errors
/// There is no change for [`CHANGE_MAX`]. The error contains that of the last read, if it failed.
pub async fn wait(
    what: &str,
    next: &str,
    changes: impl Stream<Item = ()>,
    read: impl AsyncFn() -> Result<Progress>,
    show: impl Fn(&str),
) -> Result<()> {
    let mut changes = pin!(changes.fuse());
    let (mut shown, mut changed) = (None, Instant::now());
    let mut last_failure = String::new();
    loop {
        let result = timeout(READ_MAX, read()).await;
        let failure = match result.unwrap_or_else(|_| Err(anyhow!(NO_REPLY))) {
            Ok(progress) => {
                if shown.as_ref() != Some(&progress) {
                    show(&format!("{what}: {progress}"));
                    changed = Instant::now();
                }
                if progress.is_complete() {
                    return Ok(());
                }
                shown = Some(progress);
                String::new()
            }
            Err(error) => format!("{error:#}"),
        };
        if !failure.is_empty() && failure != last_failure {
            show(&format!("note: {what}: {failure}: this command tries again"));
        }
        last_failure = failure;
        let limit = changed + CHANGE_MAX;
        if Instant::now() >= limit {
            bail!(limit_text(what, shown.as_ref(), &last_failure, next));
        }
        let retry = if last_failure.is_empty() { limit } else { limit.min(Instant::now() + RETRY) };
        tokio::select! {
            Some(()) = changes.next() => sleep(SETTLE).await,
            () = sleep_until(retry) => {}
        }
        while let Some(Some(())) = changes.next().now_or_never() {}
    }
}

fn limit_text(what: &str, shown: Option<&Progress>, failure: &str, next: &str) -> String {
    let progress = shown.map(|it| format!(": {it}")).unwrap_or_default();
    let failure = if failure.is_empty() { failure } else { &format!(" ({failure})") };
    let waits_for_nodes = shown.is_some_and(|it| !it.left_out.is_empty());
    let nodes = if waits_for_nodes { NODES } else { "" };
    format!(
        "{what}{progress}, without a change for {} s{failure}: {nodes}{next}",
        CHANGE_MAX.as_secs()
    )
}

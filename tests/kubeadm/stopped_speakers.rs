//! Speakers that do not run: the condition of a Service and `kubectl ferrolb status` report that.

use crate::scenario::{print_measured, step};
use crate::{upgrade, web};
use anyhow::{Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_lab::wait::WorkClock;
use std::time::Duration;

/// Maximum time until the condition reports that no speaker runs.
const REPORTED_MAX: Duration = Duration::from_secs(30);
const CONDITION: &str = "ferrolb.io/Announced";

/// A node selector that matches no node, and its removal.
const SELECT_NOTHING: &str = r#"kubectl -n ferrolb-system patch daemonset speaker --type merge -p '{"spec":{"template":{"spec":{"nodeSelector":{"example.com/none":"none"}}}}}'"#;
const SELECT_ALL: &str = r#"kubectl -n ferrolb-system patch daemonset speaker --type merge -p '{"spec":{"template":{"spec":{"nodeSelector":{"example.com/none":null}}}}}'"#;
/// An image that no registry has, in pods that replace the present ones.
const NO_IMAGE: &str = "kubectl -n ferrolb-system set image daemonset/speaker speaker=ferrolb/speaker:none && \
     kubectl -n ferrolb-system delete pods -l app.kubernetes.io/component=speaker";
const UNDO: &str = "kubectl -n ferrolb-system rollout undo daemonset/speaker";

/// Checks a cluster in which the speakers of all nodes stop at once. The Service `web` is
/// announced.
pub(crate) fn check_all(lab: &Lab) -> Result<()> {
    step("no node matches the speakers' node selector: their stop is reported", || {
        check(lab, SELECT_NOTHING, || lab.shell(SELECT_ALL).map(drop))
    })?;
    step("the speakers' DaemonSet is deleted: their stop is reported", || {
        check(lab, "kubectl -n ferrolb-system delete daemonset speaker", || lab.deploy_ferrolb())
    })
}

/// Checks a cluster whose only speaker cannot start. The Service `web` is announced.
pub(crate) fn check_only(lab: &Lab) -> Result<()> {
    step("the image of the only speaker cannot be pulled: its stop is reported", || {
        check(lab, NO_IMAGE, || lab.shell(UNDO).map(drop))
    })
}

fn check(lab: &Lab, stop: &str, restart: impl Fn() -> Result<()>) -> Result<()> {
    let clock = WorkClock::start();
    lab.shell(stop)?;
    let message = web::wait_reason(lab, "web", CONDITION, "SpeakersNotRunning")?;
    print_measured(&format!(
        "speakers stopped: reported after {:.1?}",
        clock.within(REPORTED_MAX)?
    ));
    ensure!(message.contains("the speakers that announced it do not run"), "{message}");
    let status = lab.shell("kubectl ferrolb status")?;
    ensure!(status.starts_with("speakers 0 of"), "{status}");
    ensure!(status.contains("stopped"), "{status}");
    restart()?;
    upgrade::wait_rolled_out(lab)?;
    web::wait_reason(lab, "web", CONDITION, "Announced").map(drop)
}

//! A substitute for the kubelets of the nodes: runs the liveness probe of the gobgpd DaemonSet, and
//! restarts a gobgpd whose probe fails.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::{Lab, Signal, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The `livenessProbe` of gobgpd, and the number of its consecutive failures by node.
pub(crate) struct Kubelet<'a> {
    lab: &'a Lab,
    server: SocketAddr,
    path: String,
    period: Duration,
    threshold: u64,
    grace: Duration,
    next: Instant,
    failures: BTreeMap<String, u64>,
}

impl<'a> Kubelet<'a> {
    pub(crate) fn new(lab: &'a Lab) -> Result<Self> {
        let probe = &bgp::container()?["livenessProbe"];
        let get = &probe["httpGet"];
        let number =
            |value: &Value| value.as_u64().context("a field of the livenessProbe is no number");
        Ok(Self {
            lab,
            server: SocketAddr::new(
                get["host"].as_str().context("the livenessProbe has no host")?.parse()?,
                u16::try_from(number(&get["port"])?)?,
            ),
            path: get["path"].as_str().context("the livenessProbe has no path")?.to_owned(),
            period: Duration::from_secs(number(&probe["periodSeconds"])?),
            threshold: number(&probe["failureThreshold"])?,
            grace: Duration::from_secs(number(&probe["terminationGracePeriodSeconds"])?),
            next: wait::now(),
            failures: BTreeMap::new(),
        })
    }

    /// Returns the maximum time from the first failed probe until gobgpd is ended.
    pub(crate) fn restart_max(&self) -> Duration {
        self.period * u32::try_from(self.threshold).unwrap_or(u32::MAX) + self.grace
    }

    /// Probes all nodes if a period has passed, and restarts a gobgpd whose probe has failed
    /// `failureThreshold` times.
    pub(crate) fn probe_if_due(&mut self) -> Result<()> {
        if wait::now() < self.next {
            return Ok(());
        }
        self.next += self.period;
        for node in self.lab.nodes() {
            let reply = self.lab.http_get(&node, self.server, &self.path);
            let healthy = reply.is_ok_and(|page| (200..400).contains(&page.status));
            let failures = self.failures.entry(node.clone()).or_default();
            *failures = if healthy { 0 } else { *failures + 1 };
            if *failures == self.threshold {
                *failures = 0;
                let name = bgp::process_name(&node);
                // A failed hook does not stop the restart.
                let hook_reply = bgp::call_pre_stop_hook(self.lab, &node, self.grace);
                let handed_over = hook_reply.as_ref().is_ok_and(|page| page.status == 200);
                ensure!(
                    !handed_over,
                    "the hook of a gobgpd without a speaker or a socket succeeded: {hook_reply:?}"
                );
                self.lab.stop(&name, Signal::TERM)?;
                self.lab.restart(&name)?;
            }
        }
        Ok(())
    }
}

//! Kubelet of the lab's gobgpds: runs the liveness probe of their DaemonSet, and restarts a gobgpd
//! whose probe fails.

use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::bgp;
use ferrolb_lab::{Lab, Signal, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The probe (`livenessProbe` of Kubernetes), and the number of consecutive failures by node.
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
        let number = |value: &Value| value.as_u64().context("a number");
        Ok(Self {
            lab,
            server: SocketAddr::new(
                get["host"].as_str().context("a host")?.parse()?,
                u16::try_from(number(&get["port"])?)?,
            ),
            path: get["path"].as_str().context("a path")?.to_owned(),
            period: Duration::from_secs(number(&probe["periodSeconds"])?),
            threshold: number(&probe["failureThreshold"])?,
            grace: Duration::from_secs(number(&probe["terminationGracePeriodSeconds"])?),
            next: wait::now(),
            failures: BTreeMap::new(),
        })
    }

    /// Returns the maximum time from the first failed probe until gobgpd is ended.
    pub(crate) fn bound(&self) -> Duration {
        self.period * u32::try_from(self.threshold).unwrap_or(u32::MAX) + self.grace
    }

    /// Probes when the period is over. Restarts a gobgpd whose probe has failed too often.
    pub(crate) fn turn(&mut self) -> Result<()> {
        if wait::now() < self.next {
            return Ok(());
        }
        self.next += self.period;
        for node in self.lab.nodes() {
            let answer = self.lab.http_get(&node, self.server, &self.path);
            let lives = answer.is_ok_and(|page| (200..400).contains(&page.status));
            let failures = self.failures.entry(node.clone()).or_default();
            *failures = if lives { 0 } else { *failures + 1 };
            if *failures == self.threshold {
                *failures = 0;
                let name = bgp::process_name(&node);
                // A failed hook does not stop the restart.
                let asked = bgp::before_stop(self.lab, &node, self.grace);
                let handed_over = asked.as_ref().is_ok_and(|page| page.status == 200);
                ensure!(
                    !handed_over,
                    "routers would wait for a gobgpd without a speaker or a socket: {asked:?}"
                );
                self.lab.stop(&name, Signal::TERM)?;
                self.lab.restart(&name)?;
            }
        }
        Ok(())
    }
}

//! Setup of every row: a Service whose pods survive the failure of its owner, a client that
//! connects all the time over IPv4 and over IPv6, and one long-lived connection of each family.

use super::forwarding;
use crate::bench::services;
use crate::bench::settle::{self, REST_MAX};
use crate::lab::RunningProbe;
use crate::traffic::long_lived::ConnectionOutcome;
use crate::traffic::probe::{ProbeReport, Transport};
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Interval of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// Time for which the client connects before the event, and after it.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// Maximum time for which the client connects if the event does not end.
const PROBE_MAX: Duration = Duration::from_secs(115);
/// Time after all speakers are ready in which a speaker may still listen before its first claim (1
/// s) or be in preempt delay (2 s), plus a margin.
const PREEMPT_DELAY_MAX: Duration = Duration::from_secs(4);
/// Time for which the right pods alone must serve all connections before a run.
const STEADY: Duration = Duration::from_secs(1);
/// Pool and its advertisement.
const POOL: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: failover, namespace: ferrolb-system}
spec: {addresses: [172.30.0.200-172.30.0.210, 'fd30::200-fd30::210']}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: failover, namespace: ferrolb-system}
";
/// Service of most rows.
pub(super) const WEB: ServiceSet = ServiceSet {
    names: &["failover"],
    port: 80,
    yaml: "\
apiVersion: v1
kind: Service
metadata: {name: failover, namespace: default}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {app: failover}
  ports: [{port: 80, targetPort: 8080}]
",
};

/// Services with the same addresses, one of each family, IPv4 first.
#[derive(Debug)]
pub(super) struct ServiceSet {
    pub(super) names: &'static [&'static str],
    pub(super) port: u16,
    pub(super) yaml: &'static str,
}

/// A server, with the addresses and the transports that the client uses.
#[derive(Clone, Debug)]
pub(super) struct FailoverSetup<'a> {
    pub(super) lab: &'a Lab,
    pub(super) servers: Vec<SocketAddr>,
    transports: &'static [Transport],
    /// Services that are created again before each run.
    served: Option<&'static ServiceSet>,
}

/// The client's report for one address over one transport, and the outcome of its long-lived
/// connection. Only the first transport has one.
pub(super) type ProbeResult = (ProbeReport, Option<ConnectionOutcome>);

impl<'a> FailoverSetup<'a> {
    /// Creates the pods, the pool and the Service of most rows in a lab without them.
    pub(super) fn start(lab: &'a Lab) -> Result<Self> {
        for node in lab.nodes() {
            lab.pod(&pod(&node), &node, &[("app", "failover")])?;
        }
        lab.apply(POOL)?;
        Self::of(lab, &WEB, &[Transport::Tcp])
    }

    /// Creates Services in front of the same pods.
    pub(super) fn of(
        lab: &'a Lab,
        served: &'static ServiceSet,
        transports: &'static [Transport],
    ) -> Result<Self> {
        Ok(Self { lab, servers: make(lab, served)?, transports, served: Some(served) })
    }

    /// Returns a server of another product in front of the same pods.
    pub(super) fn foreign(lab: &'a Lab, server: SocketAddr) -> Self {
        Self { lab, servers: vec![server], transports: &[Transport::Tcp], served: None }
    }

    /// Waits until the cluster has settled and returns the owner of the addresses.
    ///
    /// The Services are created again, so the addresses are new to all speakers: a recently moved
    /// address would stay with its owner for a longer time on each move.
    pub(super) fn settle(&self) -> Result<String> {
        settle::wait_for(self.lab)?;
        wait::during(PREEMPT_DELAY_MAX, || Ok(()))?;
        if let Some(served) = self.served {
            remove(self.lab, served)?;
            let now = make(self.lab, served)?;
            ensure!(now == self.servers, "the addresses were {:?}, and are {now:?}", self.servers);
        }
        wait::until("one owner that stays", REST_MAX, || {
            let owner = self.owner()?;
            for node in self.lab.nodes() {
                self.lab.set_ready(&pod(&node), node != owner)?;
            }
            let without = pod(&owner);
            forwarding::wait_for(self.lab, self.served.unwrap_or(&WEB), &without)?;
            for probe in self.probe(STEADY) {
                let report = probe.finish()?;
                ensure!(report.lost == 0 && !report.pods.contains_key(&without), "{report:?}");
            }
            Ok((self.owner()? == owner).then_some(owner))
        })
    }

    /// Returns the one node that owns all of the addresses.
    fn owner(&self) -> Result<String> {
        let answers = self.servers.iter().map(|server| self.lab.owner_of(server.ip()));
        let owners =
            answers.collect::<Result<Option<BTreeSet<_>>>>()?.context("no node replies")?;
        ensure!(owners.len() == 1, "{owners:?} reply for {:?}", self.servers);
        owners.into_iter().next().context("there is no address")
    }

    /// Triggers `event` while the client connects. Returns the results of each address in turn,
    /// over each transport.
    pub(super) fn watch(&self, event: impl FnOnce() -> Result<()>) -> Result<Vec<ProbeResult>> {
        let probes = self.probe(PROBE_MAX);
        let lasting: Vec<_> = self
            .servers
            .iter()
            .map(|server| self.lab.start_long_lived(*server, PROBE_MAX))
            .collect();
        wait::during(BEFORE, || Ok(()))?;
        let happened = event();
        wait::during(AFTER, || Ok(()))?;
        let reports = probes.into_iter().map(RunningProbe::stop).collect::<Result<Vec<_>>>()?;
        let fates = lasting.into_iter().map(RunningProbe::stop).collect::<Result<Vec<_>>>()?;
        happened?;
        reports.iter().try_for_each(check)?;
        let others = self.transports.len() - 1;
        let fates = fates
            .into_iter()
            .flat_map(|fate| iter::once(Some(fate)).chain(iter::repeat_n(None, others)));
        Ok(reports.into_iter().zip(fates).collect())
    }

    fn probe(&self, length: Duration) -> Vec<RunningProbe> {
        let each = self
            .servers
            .iter()
            .flat_map(|server| self.transports.iter().map(|transport| (*server, *transport)));
        each.map(|(server, transport)| self.lab.start_probe_by(transport, server, length, STEP))
            .collect()
    }
}

/// Rejects a report that shows no outage of the event: no reply before the event, or none after it.
fn check(report: &ProbeReport) -> Result<()> {
    let (began, gap) = (report.gap_began_ms, report.longest_gap_ms);
    ensure!(began > 0.0, "no reply before the event: {report:?}");
    ensure!(began + gap < report.length_ms, "no reply after the event: {report:?}");
    Ok(())
}

/// Returns the name of a node's pod.
fn pod(node: &str) -> String {
    format!("web{node}")
}

/// Creates Services and returns their socket addresses.
fn make(lab: &Lab, served: &ServiceSet) -> Result<Vec<SocketAddr>> {
    lab.apply(served.yaml)?;
    let addresses = served
        .names
        .iter()
        .map(|name| wait_addresses(lab, name))
        .collect::<Result<BTreeSet<_>>>()?;
    ensure!(addresses.len() == 1, "the Services have {addresses:?}, not the same addresses");
    Ok(addresses
        .into_iter()
        .flatten()
        .map(|address| SocketAddr::new(address, served.port))
        .collect())
}

/// Removes Services.
pub(super) fn remove(lab: &Lab, served: &ServiceSet) -> Result<()> {
    lab.kubectl(&[&["delete", "service"], served.names].concat()).map(drop)
}

/// Waits for the addresses of a Service and returns them.
fn wait_addresses(lab: &Lab, service: &str) -> Result<Vec<IpAddr>> {
    wait::until(&format!("the addresses of the Service {service}"), REST_MAX, || {
        let service =
            serde_json::from_str(&lab.kubectl(&["get", "service", service, "-o", "json"])?)?;
        let addresses = services::addresses(&service);
        Ok((!addresses.is_empty()).then_some(addresses))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_says_nothing_is_refused() {
        let report = |gap_began_ms, longest_gap_ms| ProbeReport {
            length_ms: 10_000.0,
            gap_began_ms,
            longest_gap_ms,
            ..ProbeReport::default()
        };
        for (what, report, good) in [
            ("an outage that ended", report(1000.0, 190.0), true),
            ("one that did not", report(1000.0, 9000.0), false),
            ("never answered", report(0.0, 10_000.0), false),
            ("nothing happened", report(4000.0, 14.0), true),
        ] {
            assert_eq!(check(&report).is_ok(), good, "{what}");
        }
    }
}

//! Setup of every row: a Service whose pods survive the failure of its owner, a client that
//! connects all the time over IPv4 and over IPv6, and one long-lived connection of each family.

use super::forwarding;
use crate::bench::services;
use crate::bench::settle::{self, SETTLE_MAX};
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
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the client connects before the event. [`PROBE_AFTER`] is the time after the
/// event.
const PROBE_BEFORE: Duration = Duration::from_secs(1);
const PROBE_AFTER: Duration = Duration::from_secs(3);
/// Maximum time for which the client connects if the event does not end.
const PROBE_MAX: Duration = Duration::from_secs(115);
/// Maximum time after all speakers are ready in which a speaker is still in its listen phase before
/// its first claim (1 s) or in preempt delay (2 s), plus a margin.
const PREEMPT_DELAY_MAX: Duration = Duration::from_secs(4);
/// Time for which the pods on other nodes than the owner must serve all connections before a run.
const STEADY_TIME: Duration = Duration::from_secs(1);
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
    /// Services that are created again before each run. None: the server is another product.
    service_set: Option<&'static ServiceSet>,
}

/// The client's report for one address over one transport, and the outcome of the long-lived
/// connection. Only the first transport has a long-lived connection.
pub(super) type ProbeResult = (ProbeReport, Option<ConnectionOutcome>);

impl<'a> FailoverSetup<'a> {
    /// Creates the pods, the pool and the Service of most rows in a lab without them.
    pub(super) fn start(lab: &'a Lab) -> Result<Self> {
        for node in lab.nodes() {
            lab.pod(&pod_name(&node), &node, &[("app", "failover")])?;
        }
        lab.apply(POOL)?;
        Self::of(lab, &WEB, &[Transport::Tcp])
    }

    /// Creates Services in front of the same pods.
    pub(super) fn of(
        lab: &'a Lab,
        service_set: &'static ServiceSet,
        transports: &'static [Transport],
    ) -> Result<Self> {
        Ok(Self {
            lab,
            servers: create_services(lab, service_set)?,
            transports,
            service_set: Some(service_set),
        })
    }

    /// Returns a setup whose server is another product in front of the same pods.
    pub(super) fn of_other_product(lab: &'a Lab, server: SocketAddr) -> Self {
        Self { lab, servers: vec![server], transports: &[Transport::Tcp], service_set: None }
    }

    /// Waits until the cluster has settled and returns the owner of the addresses.
    ///
    /// The Services are created again, so the addresses are new to all speakers: a recently moved
    /// address would stay with its owner for a longer time on each move.
    pub(super) fn settle(&self) -> Result<String> {
        settle::wait_settled(self.lab)?;
        wait::during(PREEMPT_DELAY_MAX, || Ok(()))?;
        if let Some(service_set) = self.service_set {
            delete_services(self.lab, service_set)?;
            let servers = create_services(self.lab, service_set)?;
            ensure!(
                servers == self.servers,
                "the Services had the addresses {:?}, and now have {servers:?}",
                self.servers
            );
        }
        wait::until("one node owns all addresses during a probe", SETTLE_MAX, || {
            let owner = self.owner()?;
            for node in self.lab.nodes() {
                self.lab.set_ready(&pod_name(&node), node != owner)?;
            }
            let removed_pod = pod_name(&owner);
            forwarding::wait_for(self.lab, self.service_set.unwrap_or(&WEB), &removed_pod)?;
            for probe in self.start_probes(STEADY_TIME) {
                let report = probe.finish()?;
                ensure!(report.lost == 0 && !report.pods.contains_key(&removed_pod), "{report:?}");
            }
            Ok((self.owner()? == owner).then_some(owner))
        })
    }

    /// Returns the one node that owns all of the addresses.
    fn owner(&self) -> Result<String> {
        let owners = self.servers.iter().map(|server| self.lab.owner_of(server.ip()));
        let owners = owners
            .collect::<Result<Option<BTreeSet<_>>>>()?
            .context("no node replies for an address")?;
        ensure!(owners.len() == 1, "{owners:?} reply for {:?}", self.servers);
        owners.into_iter().next().context("the Services have no address")
    }

    /// Triggers `event` while the client connects. Returns the results of each address in turn,
    /// over each transport.
    pub(super) fn watch(&self, event: impl FnOnce() -> Result<()>) -> Result<Vec<ProbeResult>> {
        let probes = self.start_probes(PROBE_MAX);
        let connections: Vec<_> = self
            .servers
            .iter()
            .map(|server| self.lab.start_long_lived(*server, PROBE_MAX))
            .collect();
        wait::during(PROBE_BEFORE, || Ok(()))?;
        let event_result = event();
        wait::during(PROBE_AFTER, || Ok(()))?;
        let reports = probes.into_iter().map(RunningProbe::stop).collect::<Result<Vec<_>>>()?;
        let outcomes =
            connections.into_iter().map(RunningProbe::stop).collect::<Result<Vec<_>>>()?;
        event_result?;
        reports.iter().try_for_each(check_report)?;
        let others = self.transports.len() - 1;
        let outcomes = outcomes
            .into_iter()
            .flat_map(|outcome| iter::once(Some(outcome)).chain(iter::repeat_n(None, others)));
        Ok(reports.into_iter().zip(outcomes).collect())
    }

    fn start_probes(&self, length: Duration) -> Vec<RunningProbe> {
        let targets = self
            .servers
            .iter()
            .flat_map(|server| self.transports.iter().map(|transport| (*server, *transport)));
        targets
            .map(|(server, transport)| {
                self.lab.start_probe_over(transport, server, length, PROBE_INTERVAL)
            })
            .collect()
    }
}

/// Rejects a report that does not show how the event ended. With lost connections, it must also
/// have a reply before the event and a reply after it.
fn check_report(report: &ProbeReport) -> Result<()> {
    // Without a lost connection there is no outage, and the longest gap may be anywhere.
    if report.lost == 0 {
        return Ok(());
    }
    let (began, gap) = (report.gap_began_ms, report.longest_gap_ms);
    ensure!(began > 0.0, "no reply before the event: {report:?}");
    ensure!(began + gap < report.length_ms, "no reply after the event: {report:?}");
    Ok(())
}

/// Returns the name of a node's pod.
fn pod_name(node: &str) -> String {
    format!("web{node}")
}

/// Creates Services and returns their socket addresses.
fn create_services(lab: &Lab, service_set: &ServiceSet) -> Result<Vec<SocketAddr>> {
    lab.apply(service_set.yaml)?;
    let addresses = service_set
        .names
        .iter()
        .map(|name| wait_addresses(lab, name))
        .collect::<Result<BTreeSet<_>>>()?;
    ensure!(addresses.len() == 1, "the Services have {addresses:?}, not the same addresses");
    Ok(addresses
        .into_iter()
        .flatten()
        .map(|address| SocketAddr::new(address, service_set.port))
        .collect())
}

/// Deletes Services.
pub(super) fn delete_services(lab: &Lab, service_set: &ServiceSet) -> Result<()> {
    lab.kubectl(&[&["delete", "service"], service_set.names].concat()).map(drop)
}

/// Waits for the addresses of a Service and returns them.
fn wait_addresses(lab: &Lab, service: &str) -> Result<Vec<IpAddr>> {
    wait::until(&format!("the Service {service} has an address"), SETTLE_MAX, || {
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
    fn a_report_that_misses_the_end_of_the_event_is_rejected() {
        let report = |gap_began_ms, longest_gap_ms, lost| ProbeReport {
            length_ms: 10_000.0,
            gap_began_ms,
            longest_gap_ms,
            lost,
            ..ProbeReport::default()
        };
        for (case, report, valid) in [
            ("an outage that ended", report(1000.0, 190.0, 19), true),
            ("an outage that did not end", report(1000.0, 9000.0, 900), false),
            ("no reply at all", report(0.0, 10_000.0, 1_000), false),
            ("no outage", report(4000.0, 14.0, 0), true),
            ("no outage, and the longest gap is the last one", report(9986.0, 14.0, 0), true),
        ] {
            assert_eq!(check_report(&report).is_ok(), valid, "{case}");
        }
    }
}

//! Where every row plays: a Service that answers from pods that outlive its owner, a client that connects all the time over IPv4 and over IPv6,
//! and of each a connection that lasts.

use super::forwarding;
use crate::bench::rest::{self, REST_MAX};
use crate::bench::services;
use crate::lab::Probing;
use crate::traffic::lasting::Fate;
use crate::traffic::probe::{Report, Transport};
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The step of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// How long the client connects before something happens, and how long after.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(3);
/// How long the client goes on if whatever happens takes no end.
const PROBE_MAX: Duration = Duration::from_secs(115);
/// How long after all speakers are ready one of them may still listen or be fresh: 1 s and 2 s, and some more.
const FRESH_MAX: Duration = Duration::from_secs(4);
/// How long connections must have been answered by the right pods alone before a run.
const STEADY: Duration = Duration::from_secs(1);
/// The pool, and what announces it.
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
/// The Service of most rows.
pub(super) const WEB: Served = Served {
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
pub(super) struct Served {
    pub(super) names: &'static [&'static str],
    pub(super) port: u16,
    pub(super) yaml: &'static str,
}

/// A server that the client knows by one or by both of its addresses, and by what it asks there.
#[derive(Clone, Debug)]
pub(super) struct Scene<'a> {
    pub(super) lab: &'a Lab,
    pub(super) servers: Vec<SocketAddr>,
    transports: &'static [Transport],
    /// The Services that are made anew before each run.
    served: Option<&'static Served>,
}

/// What the client saw of one address by one transport, and what became of the connection that lasted, which the first transport alone has.
pub(super) type Seen = (Report, Option<Fate>);

impl<'a> Scene<'a> {
    /// Makes the pods and the pool in a lab that has none, and the Service of most rows.
    pub(super) fn raise(lab: &'a Lab) -> Result<Self> {
        for node in lab.nodes() {
            lab.pod(&pod(&node), &node, &[("app", "failover")])?;
        }
        lab.apply(POOL)?;
        Self::of(lab, &WEB, &[Transport::Tcp])
    }

    /// Makes Services before the same pods.
    pub(super) fn of(lab: &'a Lab, served: &'static Served, transports: &'static [Transport]) -> Result<Self> {
        Ok(Self { lab, servers: make(lab, served)?, transports, served: Some(served) })
    }

    /// A server that FerroLB does not know, before the same pods.
    pub(super) fn foreign(lab: &'a Lab, server: SocketAddr) -> Self {
        Self { lab, servers: vec![server], transports: &[Transport::Tcp], served: None }
    }

    /// Waits until all is at rest; who answers for the address then. The Services are new, and so is the address to all speakers: one that moved
    /// of late would be left with its holder for longer each time.
    pub(super) fn rest(&self) -> Result<String> {
        rest::wait_for(self.lab)?;
        wait::during(FRESH_MAX, || Ok(()))?;
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

    /// The one node that answers for all of the addresses.
    fn owner(&self) -> Result<String> {
        let answers = self.servers.iter().map(|server| self.lab.who_answers(server.ip()));
        let owners = answers.collect::<Result<Option<BTreeSet<_>>>>()?.context("nobody answers")?;
        ensure!(owners.len() == 1, "{owners:?} answer for {:?}", self.servers);
        owners.into_iter().next().context("there is no address")
    }

    /// Lets `event` happen under the client's eyes; what it saw of each address in turn, by each transport.
    pub(super) fn watch(&self, event: impl FnOnce() -> Result<()>) -> Result<Vec<Seen>> {
        let probes = self.probe(PROBE_MAX);
        let lasting: Vec<_> = self.servers.iter().map(|server| self.lab.start_lasting(*server, PROBE_MAX)).collect();
        wait::during(BEFORE, || Ok(()))?;
        let happened = event();
        wait::during(AFTER, || Ok(()))?;
        let reports = probes.into_iter().map(Probing::stop).collect::<Result<Vec<_>>>()?;
        let fates = lasting.into_iter().map(Probing::stop).collect::<Result<Vec<_>>>()?;
        happened?;
        reports.iter().try_for_each(check)?;
        let others = self.transports.len() - 1;
        let fates = fates.into_iter().flat_map(|fate| iter::once(Some(fate)).chain(iter::repeat_n(None, others)));
        Ok(reports.into_iter().zip(fates).collect())
    }

    fn probe(&self, length: Duration) -> Vec<Probing> {
        let each = self.servers.iter().flat_map(|server| self.transports.iter().map(|transport| (*server, *transport)));
        each.map(|(server, transport)| self.lab.start_probe_by(transport, server, length, STEP)).collect()
    }
}

/// Refuses a report that says nothing of what happened: no answer before, or none after.
fn check(report: &Report) -> Result<()> {
    let (began, gap) = (report.gap_began_ms, report.longest_gap_ms);
    ensure!(began > 0.0, "nothing was answered before it happened: {report:?}");
    ensure!(began + gap < report.length_ms, "nothing was answered again after it happened: {report:?}");
    Ok(())
}

/// The pod of a node.
fn pod(node: &str) -> String {
    format!("web{node}")
}

/// Makes Services; where they are.
fn make(lab: &Lab, served: &Served) -> Result<Vec<SocketAddr>> {
    lab.apply(served.yaml)?;
    let addresses = served.names.iter().map(|name| wait_addresses(lab, name)).collect::<Result<BTreeSet<_>>>()?;
    ensure!(addresses.len() == 1, "the Services have {addresses:?}, not the same addresses");
    Ok(addresses.into_iter().flatten().map(|address| SocketAddr::new(address, served.port)).collect())
}

/// Removes Services.
pub(super) fn remove(lab: &Lab, served: &Served) -> Result<()> {
    lab.kubectl(&[&["delete", "service"], served.names].concat()).map(drop)
}

/// Waits for the addresses of a Service.
fn wait_addresses(lab: &Lab, service: &str) -> Result<Vec<IpAddr>> {
    wait::until(&format!("the addresses of the Service {service}"), REST_MAX, || {
        let service = serde_json::from_str(&lab.kubectl(&["get", "service", service, "-o", "json"])?)?;
        let addresses = services::addresses(&service);
        Ok((!addresses.is_empty()).then_some(addresses))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_says_nothing_is_refused() {
        let report = |gap_began_ms, longest_gap_ms| Report {
            length_ms: 10_000.0,
            gap_began_ms,
            longest_gap_ms,
            ..Report::default()
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

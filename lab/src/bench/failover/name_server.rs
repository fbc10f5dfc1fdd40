//! Row of a name server: a Service on TCP port 53 and one on UDP port 53 share their addresses, and
//! the client observes a power failure over both transports.
//!
//! Each UDP request comes from a new port and has no retry. A real resolver that retries after one
//! second loses nothing.

use super::runs::RowResults;
use super::setup::{self, FailoverSetup, ServiceSet};
use crate::Lab;
use crate::bench::report::Findings;
use crate::bench::settle;
use crate::bench::targets;
use crate::traffic::probe::Transport;
use anyhow::Result;

/// Two Services, as required before Kubernetes allowed both protocols in one Service.
const DNS_SERVICES: ServiceSet = ServiceSet {
    names: &["names-tcp", "names-udp"],
    port: 53,
    yaml: "\
apiVersion: v1
kind: Service
metadata: {name: names-tcp, namespace: default, annotations: {ferrolb.io/allow-shared-ip: names}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {app: failover}
  ports: [{port: 53, targetPort: 8080, protocol: TCP}]
---
apiVersion: v1
kind: Service
metadata: {name: names-udp, namespace: default, annotations: {ferrolb.io/allow-shared-ip: names}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {app: failover}
  ports: [{port: 53, targetPort: 8080, protocol: UDP}]
",
};

pub(super) fn run(lab: &Lab, runs: usize, findings: &mut Findings) -> Result<()> {
    let setup = FailoverSetup::of(lab, &DNS_SERVICES, &[Transport::Tcp, Transport::Udp])?;
    let all = RowResults::of(runs, || {
        let owner = setup.settle()?;
        let results = setup.watch(|| lab.power_off(&owner))?;
        settle::power_on_and_wait(lab, &owner)?;
        Ok(results)
    })?;
    all.require_losses()?.conclude(findings, &targets::FAILOVER_NAME_SERVER)?;
    setup::delete_services(lab, &DNS_SERVICES)
}

//! The row of a name server: the addresses shared by a Service on TCP port 53 and one on UDP port 53, and the power cut seen by both.

use super::runs::Runs;
use super::scene::{self, Scene, Served};
use crate::Lab;
use crate::bench::budgets;
use crate::bench::report::Findings;
use crate::bench::rest;
use crate::traffic::probe::Transport;
use anyhow::Result;

/// Two Services, as Kubernetes had them before it took both protocols in one.
const NAMES: Served = Served {
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
    let scene = Scene::of(lab, &NAMES, &[Transport::Tcp, Transport::Udp])?;
    let all = Runs::of(runs, || {
        let owner = scene.rest()?;
        let seen = scene.watch(|| lab.power_off(&owner))?;
        rest::return_power(lab, &owner)?;
        Ok(seen)
    })?;
    all.deadly()?.conclude(findings, &budgets::FAILOVER_NAMES)?;
    scene::remove(lab, &NAMES)
}

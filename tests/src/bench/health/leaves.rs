//! An address leaves its owner because it should: the owner's pod refuses connections and stays ready, which its health check finds; or the owner
//! is cordoned. From the first, how long until another node announces; from the second, what a client loses.

use super::pod;
use crate::bench::budgets::{self, HEALTH_REFUSES};
use crate::bench::report::Findings;
use crate::bench::rest::{self, REST_MAX};
use crate::bench::stats::Spread;
use crate::bench::wire::{self, Listener};
use crate::cluster::pods::process_name;
use crate::lab::admin::metric;
use crate::topology::{Host, node_index};
use crate::{Lab, Signal, wait};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How often the owner's pod refuses, and how often the owner is cordoned.
const REFUSALS: usize = 5;
const CORDONS: usize = 10;
/// The step of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// How long the client connects before a cordon and after the move, and at most.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(1000);
/// Between two cordons: who gives up within 5 s what it took leaves it, for 10 s and more, with a holder that is cordoned and still serves.
const APART: Duration = Duration::from_secs(6);
const PROBE_MAX: Duration = Duration::from_secs(30);
/// How long an address may take to move.
const MOVE_MAX: Duration = Duration::from_secs(20);
/// A connection that began so shortly before its address moved, and not after, is under way then: three steps of the client, each of which
/// takes a tenth of one on a machine that is not busy.
const UNDER_WAY: Duration = Duration::from_millis(30);
const YAML: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: leaves, namespace: ferrolb-system}
spec: {addresses: [172.30.0.201/32]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: leaves, namespace: ferrolb-system}
spec: {ipAddressPools: [leaves]}
---
apiVersion: v1
kind: Service
metadata: {name: leaves, namespace: default, annotations: {ferrolb.io/health-check: tcp}}
spec: {type: LoadBalancer, externalTrafficPolicy: Local, selector: {app: health}, ports: [{port: 80, targetPort: 8080}]}
";
const SERVER: ([u8; 4], u16) = ([172, 30, 0, 201], 80);

/// Runs in a lab with FerroLB and a pod on each node, and leaves nothing behind.
///
/// # Errors
/// When the address does not move.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    rest::wait_for(lab)?;
    lab.apply(YAML)?;
    steady(lab, server)?;
    let mut findings = Findings::default();
    let found = (0..REFUSALS).map(|_| refuses(lab, server)).collect::<Result<Vec<f64>>>()?;
    let spread = Spread::of(&found).context("a refusal")?;
    findings.add(&HEALTH_REFUSES[0], spread.median);
    findings.add(&HEALTH_REFUSES[1], spread.max);
    findings.keep("health.refuses", found);
    let lost = (0..CORDONS).map(|_| cordoned(lab, server)).collect::<Result<Vec<[usize; 2]>>>()?;
    for (place, known) in budgets::HEALTH_CORDON.iter().enumerate() {
        findings.add(known, lost.iter().map(|lost| lost[place]).sum::<usize>() as f64);
    }
    findings.keep("health.cordon.lost", lost.iter().map(|[all, _]| *all as f64).collect());
    lab.kubectl(&["delete", "service", "leaves"])?;
    Ok(findings)
}

/// Waits until every connection of half a second is answered.
fn steady(lab: &Lab, server: SocketAddr) -> Result<()> {
    wait::until("the Service answers", REST_MAX, || {
        let report = lab.start_probe(server, BEFORE, STEP).finish()?;
        ensure!(report.lost == 0, "{report:?}");
        Ok(Some(()))
    })
}

/// The owner's pod refuses connections: how long until another node announces the address, in milliseconds. It answers again after that.
fn refuses(lab: &Lab, server: SocketAddr) -> Result<f64> {
    let (owner, listener) = (owner(lab, server)?, Listener::start(lab)?);
    let (process, start) = (process_name(&pod(&owner)), wait::now());
    lab.stop(&process, Signal::KILL)?;
    let moved = moved(&listener, server, &owner)?;
    listener.stop()?;
    lab.restart(&process)?;
    wait::until("its endpoint passes again", REST_MAX, || {
        Ok((metric(lab, &owner, "ferrolb_speaker_health_targets_failing")? == 0.0).then_some(()))
    })?;
    steady(lab, server)?;
    Ok((moved - start).as_secs_f64() * 1000.0)
}

/// The owner is cordoned, and after the move no more: how many connections were lost, and how many of them were not under way in its moment.
fn cordoned(lab: &Lab, server: SocketAddr) -> Result<[usize; 2]> {
    wait::during(APART, || Ok(()))?;
    let (owner, listener) = (owner(lab, server)?, Listener::start(lab)?);
    let probing = lab.start_probe(server, PROBE_MAX, STEP);
    wait::during(BEFORE, || Ok(()))?;
    let moved = lab.kubectl(&["cordon", &owner]).and_then(|_| moved(&listener, server, &owner));
    wait::during(AFTER, || Ok(()))?;
    let report = probing.stop()?;
    listener.stop()?;
    lab.kubectl(&["uncordon", &owner])?;
    Ok([report.lost, beyond(&report.losses, moved?)])
}

/// Of the connections that were lost, by their beginnings, those that were not under way when the address moved.
fn beyond(losses: &[Instant], moved: Instant) -> usize {
    let under_way = |began: &&Instant| **began <= moved && moved.duration_since(**began) <= UNDER_WAY;
    losses.len() - losses.iter().filter(under_way).count()
}

fn owner(lab: &Lab, server: SocketAddr) -> Result<String> {
    lab.who_answers(server.ip())?.context("nobody answers")
}

/// When another node than this one announced the address on the client's wire.
fn moved(listener: &Listener, server: SocketAddr, owner: &str) -> Result<Instant> {
    let host = node_index(owner).map(Host::node).with_context(|| format!("{owner} is no node"))?;
    let mac = wire::mac(&host)?;
    wait::until("another node announces", MOVE_MAX, || Ok(listener.first_by_another(server.ip(), mac)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_just_before_the_move_was_under_way_and_nothing_else() {
        let moved = wait::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        for (began, expect) in [(moved - ms(31), 1), (moved - ms(30), 0), (moved, 0), (moved + ms(1), 1)] {
            assert_eq!(beyond(&[began], moved), expect, "{began:?} of {moved:?}");
        }
        assert_eq!(beyond(&[moved - ms(40), moved - ms(10), moved + ms(10)], moved), 2);
        assert_eq!(beyond(&[], moved), 0);
    }
}

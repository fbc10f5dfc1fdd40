//! Moves of an address away from its owner: the owner's pod rejects connections but stays ready,
//! which the health check detects; or the owner is cordoned. Measures the time until another node
//! announces for the first, and the client's losses for the second.

use super::pod;
use crate::bench::report::Findings;
use crate::bench::segment::{self, AnnouncementRecorder};
use crate::bench::settle::{self, REST_MAX};
use crate::bench::stats::Spread;
use crate::bench::targets::{self, HEALTH_REFUSES};
use crate::cluster::pods::process_name;
use crate::lab::admin::metric;
use crate::topology::{Host, node_index};
use crate::{Lab, Signal, wait};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Number of refusals of the owner's pod, and number of cordons of the owner.
const REFUSALS: usize = 5;
const CORDONS: usize = 10;
/// Interval of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// Time for which the client connects before a cordon, after the move, and at most.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(1000);
/// Pause between two cordons. A node that releases an address within 5 s of taking it does not
/// retake it for 10 s and more from an owner that is cordoned and still serves.
const APART: Duration = Duration::from_secs(6);
const PROBE_MAX: Duration = Duration::from_secs(30);
/// Maximum time for an address to move.
const MOVE_MAX: Duration = Duration::from_secs(20);
/// A connection that began at most this long before its address moved, and not after, counts as in
/// progress: three intervals of the client. A connection takes a tenth of an interval on an idle
/// machine.
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

/// Runs in a lab with FerroLB and a pod on each node; the Service is deleted afterwards.
///
/// # Errors
/// If the address does not move.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    settle::wait_for(lab)?;
    lab.apply(YAML)?;
    steady(lab, server)?;
    let mut findings = Findings::default();
    let found = (0..REFUSALS).map(|_| refuses(lab, server)).collect::<Result<Vec<f64>>>()?;
    let spread = Spread::of(&found).context("a refusal")?;
    findings.add(&HEALTH_REFUSES[0], spread.median);
    findings.add(&HEALTH_REFUSES[1], spread.max);
    findings.keep("health.refuses", found);
    let lost = (0..CORDONS).map(|_| cordoned(lab, server)).collect::<Result<Vec<[usize; 2]>>>()?;
    for (place, known) in targets::HEALTH_CORDON.iter().enumerate() {
        findings.add(known, lost.iter().map(|lost| lost[place]).sum::<usize>() as f64);
    }
    findings.keep("health.cordon.lost", lost.iter().map(|[all, _]| *all as f64).collect());
    lab.kubectl(&["delete", "service", "leaves"])?;
    Ok(findings)
}

/// Waits until the Service serves every connection for half a second.
fn steady(lab: &Lab, server: SocketAddr) -> Result<()> {
    wait::until("the Service answers", REST_MAX, || {
        let report = lab.start_probe(server, BEFORE, STEP).finish()?;
        ensure!(report.lost == 0, "{report:?}");
        Ok(Some(()))
    })
}

/// Stops the server of the owner's pod and returns the time until another node announces the
/// address, in milliseconds. Restarts the server afterwards.
fn refuses(lab: &Lab, server: SocketAddr) -> Result<f64> {
    let (owner, listener) = (owner(lab, server)?, AnnouncementRecorder::start(lab)?);
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

/// Cordons the owner until the address has moved. Returns the lost connections, and how many of
/// them were not in progress at the move.
fn cordoned(lab: &Lab, server: SocketAddr) -> Result<[usize; 2]> {
    wait::during(APART, || Ok(()))?;
    let (owner, listener) = (owner(lab, server)?, AnnouncementRecorder::start(lab)?);
    let probing = lab.start_probe(server, PROBE_MAX, STEP);
    wait::during(BEFORE, || Ok(()))?;
    let moved = lab.kubectl(&["cordon", &owner]).and_then(|_| moved(&listener, server, &owner));
    wait::during(AFTER, || Ok(()))?;
    let report = probing.stop()?;
    listener.stop()?;
    lab.kubectl(&["uncordon", &owner])?;
    Ok([report.lost, beyond(&report.losses, moved?)])
}

/// Returns how many of the lost connections, given by their start times, were not in progress when
/// the address moved.
fn beyond(losses: &[Instant], moved: Instant) -> usize {
    let under_way =
        |began: &&Instant| **began <= moved && moved.duration_since(**began) <= UNDER_WAY;
    losses.len() - losses.iter().filter(under_way).count()
}

fn owner(lab: &Lab, server: SocketAddr) -> Result<String> {
    lab.owner_of(server.ip())?.context("no node replies")
}

/// Returns the time at which a node other than this one announced the address on the client's
/// network segment.
fn moved(listener: &AnnouncementRecorder, server: SocketAddr, owner: &str) -> Result<Instant> {
    let host = node_index(owner).map(Host::node).with_context(|| format!("{owner} is no node"))?;
    let mac = segment::mac(&host)?;
    wait::until("another node announces", MOVE_MAX, || {
        Ok(listener.first_by_another(server.ip(), mac))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_just_before_the_move_was_under_way_and_nothing_else() {
        let moved = wait::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        for (began, expect) in
            [(moved - ms(31), 1), (moved - ms(30), 0), (moved, 0), (moved + ms(1), 1)]
        {
            assert_eq!(beyond(&[began], moved), expect, "{began:?} of {moved:?}");
        }
        assert_eq!(beyond(&[moved - ms(40), moved - ms(10), moved + ms(10)], moved), 2);
        assert_eq!(beyond(&[], moved), 0);
    }
}

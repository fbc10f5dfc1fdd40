//! Moves of an address away from its owner: the owner's pod rejects connections but stays ready,
//! which the health check detects; or the owner is cordoned. Measures the time until another node
//! announces after the health check fails, and the client's losses after the cordon.
//!
//! # Method
//!
//! - The Service has policy Local, the health check `tcp`, and a pod on each node.
//! - Five times, the server of the owner's pod is killed. The time ends with the first gratuitous
//!   ARP of another node on the client's segment. The worst of the five has the target.
//! - Ten times, the owner is cordoned until the address has moved. The client opens a new
//!   connection every 10 ms, starting half a second before the cordon. A connection without a page
//!   within 0.9 s is lost.
//! - A lost connection counts as in progress if it started in the last 30 ms before the gratuitous
//!   ARP. Such losses are expected; all others have a target of zero.

use super::pod_name;
use crate::bench::report::Findings;
use crate::bench::segment::{self, AnnouncementRecorder};
use crate::bench::settle::{self, SETTLE_MAX};
use crate::bench::stats::Spread;
use crate::bench::targets::{self, HEALTH_POD_REFUSES};
use crate::cluster::pods::process_name;
use crate::lab::admin::metric;
use crate::topology::{Host, node_index};
use crate::{Lab, Signal, wait};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Number of runs in which the owner's pod rejects connections. [`CORDONS`] is the number of runs
/// in which the owner is cordoned.
const REFUSALS: usize = 5;
const CORDONS: usize = 10;
/// Interval of the client's connections.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the client connects before a cordon. [`PROBE_AFTER`] is the time after the move,
/// and [`PROBE_MAX`] limits the whole time.
const PROBE_BEFORE: Duration = Duration::from_millis(500);
const PROBE_AFTER: Duration = Duration::from_millis(1000);
/// Pause between two cordons. A node that releases an address within 5 s after it took the address
/// is in hold-down for 10 s or more. In this time it does not retake the address from a cordoned
/// owner.
const CORDON_PAUSE: Duration = Duration::from_secs(6);
const PROBE_MAX: Duration = Duration::from_secs(30);
/// Maximum time for an address to move.
const MOVE_MAX: Duration = Duration::from_secs(20);
/// Maximum time from the start of a connection to the move of its address if the connection counts
/// as in progress at the move: three intervals of the client. On an idle machine a connection takes
/// a tenth of an interval.
const IN_PROGRESS_MAX: Duration = Duration::from_millis(30);
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

/// Runs these measurements in a lab with FerroLB and a pod on each node, and deletes the Service
/// afterwards.
///
/// # Errors
/// If the address does not move.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    settle::wait_settled(lab)?;
    lab.apply(YAML)?;
    wait_serving(lab, server)?;
    let mut findings = Findings::default();
    let found =
        (0..REFUSALS).map(|_| measure_refusal(lab, server)).collect::<Result<Vec<f64>>>()?;
    let spread = Spread::of(&found).context("no run was measured")?;
    findings.add(&HEALTH_POD_REFUSES[0], spread.median);
    findings.add(&HEALTH_POD_REFUSES[1], spread.max);
    findings.keep_samples("health.refuses", found);
    let lost =
        (0..CORDONS).map(|_| measure_cordon(lab, server)).collect::<Result<Vec<[usize; 2]>>>()?;
    for (index, measure) in targets::HEALTH_CORDON.iter().enumerate() {
        findings.add(measure, lost.iter().map(|lost| lost[index]).sum::<usize>() as f64);
    }
    findings.keep_samples("health.cordon.lost", lost.iter().map(|[all, _]| *all as f64).collect());
    lab.kubectl(&["delete", "service", "leaves"])?;
    Ok(findings)
}

/// Waits until the Service serves every connection for half a second.
fn wait_serving(lab: &Lab, server: SocketAddr) -> Result<()> {
    wait::until("the Service serves every connection", SETTLE_MAX, || {
        let report = lab.start_probe(server, PROBE_BEFORE, PROBE_INTERVAL).finish()?;
        ensure!(report.lost == 0, "{report:?}");
        Ok(Some(()))
    })
}

/// Stops the server of the owner's pod and returns the time until another node announces the
/// address, in milliseconds. Restarts the server afterwards.
fn measure_refusal(lab: &Lab, server: SocketAddr) -> Result<f64> {
    let (owner, recorder) = (owner(lab, server)?, AnnouncementRecorder::start(lab)?);
    let (process, start) = (process_name(&pod_name(&owner)), wait::now());
    lab.stop(&process, Signal::KILL)?;
    let moved = wait_moved(&recorder, server, &owner)?;
    recorder.stop()?;
    lab.restart(&process)?;
    wait::until("the health checks of the owner pass again", SETTLE_MAX, || {
        Ok((metric(lab, &owner, "ferrolb_speaker_health_targets_failing")? == 0.0).then_some(()))
    })?;
    wait_serving(lab, server)?;
    Ok((moved - start).as_secs_f64() * 1000.0)
}

/// Cordons the owner until the address has moved. Returns the lost connections, and how many of
/// them were not in progress at the move.
fn measure_cordon(lab: &Lab, server: SocketAddr) -> Result<[usize; 2]> {
    wait::during(CORDON_PAUSE, || Ok(()))?;
    let (owner, recorder) = (owner(lab, server)?, AnnouncementRecorder::start(lab)?);
    let probing = lab.start_probe(server, PROBE_MAX, PROBE_INTERVAL);
    wait::during(PROBE_BEFORE, || Ok(()))?;
    let moved =
        lab.kubectl(&["cordon", &owner]).and_then(|_| wait_moved(&recorder, server, &owner));
    wait::during(PROBE_AFTER, || Ok(()))?;
    let report = probing.stop()?;
    recorder.stop()?;
    lab.kubectl(&["uncordon", &owner])?;
    Ok([report.lost, lost_not_in_progress(&report.losses, moved?)])
}

/// Returns how many of the lost connections, given by their start times, were not in progress when
/// the address moved.
fn lost_not_in_progress(losses: &[Instant], moved: Instant) -> usize {
    let in_progress =
        |began: &&Instant| **began <= moved && moved.duration_since(**began) <= IN_PROGRESS_MAX;
    losses.len() - losses.iter().filter(in_progress).count()
}

fn owner(lab: &Lab, server: SocketAddr) -> Result<String> {
    lab.owner_of(server.ip())?.context("no node replies for the address")
}

/// Waits until a node other than `owner` announces the address on the client's network segment, and
/// returns that time.
fn wait_moved(recorder: &AnnouncementRecorder, server: SocketAddr, owner: &str) -> Result<Instant> {
    let host = node_index(owner)
        .map(Host::node)
        .with_context(|| format!("{owner} is not a node of the lab"))?;
    let mac = segment::mac(&host)?;
    wait::until("another node announces the address", MOVE_MAX, || {
        Ok(recorder.first_announcement_by_another(server.ip(), mac))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_begun_just_before_the_move_are_in_progress() {
        let moved = wait::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        for (began, expect) in
            [(moved - ms(31), 1), (moved - ms(30), 0), (moved, 0), (moved + ms(1), 1)]
        {
            assert_eq!(
                lost_not_in_progress(&[began], moved),
                expect,
                "the connection began at {began:?}, the address moved at {moved:?}"
            );
        }
        assert_eq!(
            lost_not_in_progress(&[moved - ms(40), moved - ms(10), moved + ms(10)], moved),
            2
        );
        assert_eq!(lost_not_in_progress(&[], moved), 0);
    }
}

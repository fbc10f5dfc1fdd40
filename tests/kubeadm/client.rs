//! Connections of a client to Services while a test causes an event: a new connection every 10 ms.
//! Frames on the segment prove when an address moves.
//!
//! Each test prints the lost connections, those of them that were not in progress at a move, and
//! the longest gap. Kubelets check the readiness of the Deployment's pods every second, and the
//! pods wait 5 s before they end. All components and the client share one machine. If its
//! processors stall for 0.3 to 0.6 s, connections take up to 250 ms, and one move of a drain meets
//! 14 to 20 of them.

use crate::scenario::print_measured;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::traffic::capture::{self, Capture};
use ferrolb_lab::{Lab, ProbeReport, wait};
use ferrolb_proto::api::NAMESPACE;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Interval between the client's connections, and maximum time for which the client connects if the
/// event does not end.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(10);
pub(crate) const PROBE_TIME_MAX: Duration = Duration::from_secs(240);
/// Time for which the client connects before and after the event.
const PROBE_MARGIN: Duration = Duration::from_secs(1);
/// Maximum number of connections to one Service that are lost during an event: as many as the
/// client opens in 70 ms. The test prints how many losses no move explains.
pub(crate) const LOST_MAX: usize = 7;
/// Maximum number of moves for one event. With policy `Local` an address follows the pods of a
/// rollout, about five times. Many more moves mean that nodes compete for the address.
const MOVES_MAX: usize = 12;

/// Arguments of kubectl for the speakers' logs, which contain the causes of moves.
const SPEAKER_LOGS: [&str; 7] = [
    "-n",
    NAMESPACE,
    "logs",
    "--selector=app.kubernetes.io/component=speaker",
    "--prefix",
    "--timestamps=false",
    "--tail=25",
];

/// Name of a server in the output, and its address.
pub(crate) type NamedServer<'a> = (&'a str, SocketAddr);

/// Limits of the connections to one Service during an event.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of lost connections.
    pub(crate) lost: usize,
    /// Maximum time without a reply, in milliseconds.
    pub(crate) gap_ms: f64,
}

/// Runs `event` while a client connects to each server, and checks that at most [`LOST_MAX`]
/// connections are lost and that no address moves more than [`MOVES_MAX`] times. Pods that start on
/// the same machine delay replies, so the time without a reply has no limit.
pub(crate) fn run_without_loss<T>(
    lab: &Lab,
    name: &str,
    servers: &[NamedServer<'_>],
    event: impl FnOnce() -> Result<T>,
) -> Result<T> {
    run_within(&Limits { lost: LOST_MAX, gap_ms: f64::INFINITY }, lab, name, servers, event)
}

/// Runs `event` like [`run_without_loss`], with other limits.
pub(crate) fn run_within<T>(
    limits: &Limits,
    lab: &Lab,
    name: &str,
    servers: &[NamedServer<'_>],
    event: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (capture, probe_start) = (Capture::start(lab)?, wait::now());
    // The reply to this request puts the current owner into the capture, so that the owner's next
    // announcement does not count as a move.
    for (service, server) in servers {
        lab.owner_of(server.ip())?.with_context(|| format!("no host replies for {service}"))?;
    }
    let probing: Vec<_> = servers
        .iter()
        .map(|(_, server)| lab.start_probe(*server, PROBE_TIME_MAX, PROBE_INTERVAL))
        .collect();
    wait::during(PROBE_MARGIN, || Ok(()))?;
    let start = wait::now();
    let result = event();
    let took = start.elapsed().as_secs_f64();
    wait::during(PROBE_MARGIN, || Ok(()))?;
    let reports = probing.into_iter().map(|probing| probing.stop()).collect::<Result<Vec<_>>>()?;
    let frames = capture.stop()?;
    print_measured(&format!("{name}, {took:.1} s:"));
    let mut problems = Vec::new();
    for ((service, server), report) in servers.iter().zip(reports) {
        let moves = capture::moves(&frames, server.ip());
        let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
        let unexplained = report.losses_without_move(&moves);
        print_measured(&format!(
            "    {service}: {lost} of {sent} connections lost, {unexplained} of them not in progress at one of {} moves; longest gap {gap:.0} ms",
            moves.len()
        ));
        if lost > limits.lost || gap > limits.gap_ms || moves.len() > MOVES_MAX {
            problems.push(describe(service, &report, probe_start, &moves));
        }
    }
    let result = result?;
    if !problems.is_empty() {
        println!("{}", lab.kubectl(&SPEAKER_LOGS)?);
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(result)
}

/// Returns a message with the times of lost connections and moves, in milliseconds after
/// `probe_start`.
fn describe(
    service: &str,
    report: &ProbeReport,
    probe_start: Instant,
    moves: &[Instant],
) -> String {
    let since =
        |when: &Instant| format!("{:.0}", when.duration_since(probe_start).as_secs_f64() * 1000.0);
    let [lost, moved] =
        [&report.losses, moves].map(|times| times.iter().map(since).collect::<Vec<_>>().join(" "));
    format!(
        "{service}: connections that began at {lost} ms were lost; the address moved at {moved} ms; longest gap {:.0} ms; replies: {:?}",
        report.longest_gap_ms, report.pods
    )
}

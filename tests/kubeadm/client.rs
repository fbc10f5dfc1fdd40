//! Connections of a client to Services during an event in the cluster: a new one every 10 ms.
//! Frames on the segment show when an address moves.

use crate::scenario::print_measured;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::traffic::capture::{self, Capture, CapturedFrame};
use ferrolb_lab::{Lab, ProbeReport, wait};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_proto::wire::Mac;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Interval between connections, and maximum length of the probe if the event does not end.
const STEP: Duration = Duration::from_millis(10);
const LENGTH_MAX: Duration = Duration::from_secs(240);
/// Time of connections before and after the event.
const AROUND: Duration = Duration::from_secs(1);
/// Maximum age of a connection in progress when its address moves. A move resets the connection,
/// because only the old node has its translation state. A connection takes 1 to 5 ms, so every
/// second to tenth move hits one; starting pods make some connections slow.
const IN_PROGRESS: Duration = Duration::from_millis(200);
/// Maximum number of lost connections: those of 70 ms in a row. Losses that no move explains are
/// printed.
const LOST_MAX: usize = 7;
/// Maximum number of moves for one event. With policy `Local` an address follows the pods of a
/// rollout, about five times. Many more moves mean that nodes compete for the address.
const MOVES_MAX: usize = 12;

/// Command that shows why an address moved.
const SPEAKER_LOGS: [&str; 7] = [
    "-n",
    NAMESPACE,
    "logs",
    "--selector=app.kubernetes.io/component=speaker",
    "--prefix",
    "--timestamps=false",
    "--tail=25",
];

/// Name of a Service in the output, and its address.
pub(crate) type NamedServer<'a> = (&'a str, SocketAddr);

/// Runs `event` while a client connects to each server. Checks that at most [`LOST_MAX`]
/// connections are lost and that no address moves more than [`MOVES_MAX`] times.
pub(crate) fn without_loss<T>(
    lab: &Lab,
    name: &str,
    servers: &[NamedServer<'_>],
    event: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (capture, begun) = (Capture::start(lab)?, wait::now());
    // Records the current owner first, so that its next announcement does not count as a move.
    for (service, server) in servers {
        lab.owner_of(server.ip())?.with_context(|| format!("no host replies for {service}"))?;
    }
    let probing: Vec<_> =
        servers.iter().map(|(_, server)| lab.start_probe(*server, LENGTH_MAX, STEP)).collect();
    wait::during(AROUND, || Ok(()))?;
    let start = wait::now();
    let happened = event();
    let took = start.elapsed().as_secs_f64();
    wait::during(AROUND, || Ok(()))?;
    let reports = probing.into_iter().map(|probing| probing.stop()).collect::<Result<Vec<_>>>()?;
    let frames = capture.stop()?;
    print_measured(&format!("{name}, {took:.1} s:"));
    let mut bad = Vec::new();
    for ((service, server), report) in servers.iter().zip(reports) {
        let moves = moves(&frames, server.ip());
        let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
        let beyond = unexplained_losses(&report.losses, &moves);
        print_measured(&format!(
            "    {service}: {lost} of {sent} connections lost, {beyond} of them not under way in one of {} moves; longest gap {gap:.0} ms",
            moves.len()
        ));
        if lost > LOST_MAX || moves.len() > MOVES_MAX {
            bad.push(describe(service, &report, begun, &moves));
        }
    }
    let happened = happened?;
    if !bad.is_empty() {
        println!("{}", lab.kubectl(&SPEAKER_LOGS)?);
    }
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(happened)
}

/// Returns the lost connections and the moves, in milliseconds after the client began.
fn describe(service: &str, report: &ProbeReport, begun: Instant, moves: &[Instant]) -> String {
    let since =
        |when: &Instant| format!("{:.0}", when.duration_since(begun).as_secs_f64() * 1000.0);
    let [lost, moved] =
        [&report.losses, moves].map(|times| times.iter().map(since).collect::<Vec<_>>().join(" "));
    format!(
        "{service}: lost were connections that began at {lost} ms; it moved at {moved} ms; {:?}",
        report.pods
    )
}

/// Returns the times at which another node than before announced the address.
fn moves(frames: &[CapturedFrame], address: IpAddr) -> Vec<Instant> {
    let said: Vec<(Instant, Mac)> = frames
        .iter()
        .filter_map(|frame| Some((frame.at, capture::claimed_by(&frame.bytes, address)?)))
        .collect();
    said.windows(2).filter(|two| two[0].1 != two[1].1).map(|two| two[1].0).collect()
}

/// Returns the number of lost connections, by their start times, that no move explains.
fn unexplained_losses(losses: &[Instant], moves: &[Instant]) -> usize {
    let under_way = |began: &Instant| {
        moves
            .iter()
            .any(|moved| moved.checked_duration_since(*began).is_some_and(|age| age <= IN_PROGRESS))
    };
    losses.iter().filter(|began| !under_way(began)).count()
}

#[test]
fn only_connections_that_began_shortly_before_a_move_were_in_progress() {
    let (moved, ms) = (wait::now() + Duration::from_secs(10), Duration::from_millis);
    for (began, expect) in [
        (moved - ms(201), 1),
        (moved - ms(200), 0),
        (moved, 0),
        (moved + ms(1), 1),
        (moved + ms(4_900), 0),
    ] {
        assert_eq!(unexplained_losses(&[began], &[moved, moved + ms(5_000)]), expect, "{began:?}");
    }
    assert_eq!(unexplained_losses(&[moved], &[]), 1);
    assert_eq!(unexplained_losses(&[], &[moved]), 0);
}

//! What a client sees of Services while something happens to the cluster: it connects anew every 10 ms, and the wire tells when an address moves.

use crate::stage::measured;
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_proto::wire::Mac;
use ferrolb_tests::traffic::capture::{self, Capture, Seen};
use ferrolb_tests::{Lab, Report, wait};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How often a client connects, and how long it goes on if what happens takes no end.
const STEP: Duration = Duration::from_millis(10);
const LENGTH_MAX: Duration = Duration::from_secs(240);
/// How long it connects before anything happens, and after it has.
const AROUND: Duration = Duration::from_secs(1);
/// A connection that is under way when its address moves is reset: the old node alone knows to which pod it was translated. It takes 1 to 5 ms, so every tenth to
/// second move meets one; a machine that is busy with pods that start makes some of them slow.
const UNDER_WAY: Duration = Duration::from_millis(200);
/// How many may be lost: those of 70 ms in a row. What no move on the wire explains is printed.
const LOST_MAX: usize = 7;
/// How often an address may move for one event. With policy `Local` it follows the pods that are rolled out, some five times; what moves far more often is
/// fought for.
const MOVES_MAX: usize = 12;

/// What tells why an address moved.
const SPEAKERS_SAID: [&str; 7] = [
    "-n",
    NAMESPACE,
    "logs",
    "--selector=app.kubernetes.io/component=speaker",
    "--prefix",
    "--timestamps=false",
    "--tail=25",
];

/// A Service's address, and what it is called in what is printed.
pub(crate) type Server<'a> = (&'a str, SocketAddr);

/// Lets `event` happen under the eyes of a client of each server. Hardly anything is lost but what was under way when an address moved.
pub(crate) fn unharmed<T>(
    lab: &Lab,
    name: &str,
    servers: &[Server<'_>],
    event: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (capture, begun) = (Capture::start(lab)?, wait::now());
    // An answer of who has it now, so that the wire tells a move from a repetition.
    for (service, server) in servers {
        lab.who_answers(server.ip())?.with_context(|| format!("nobody answers for {service}"))?;
    }
    let probing: Vec<_> = servers.iter().map(|(_, server)| lab.start_probe(*server, LENGTH_MAX, STEP)).collect();
    wait::during(AROUND, || Ok(()))?;
    let start = wait::now();
    let happened = event();
    let took = start.elapsed().as_secs_f64();
    wait::during(AROUND, || Ok(()))?;
    let reports = probing.into_iter().map(|probing| probing.stop()).collect::<Result<Vec<_>>>()?;
    let frames = capture.stop()?;
    measured(&format!("{name}, {took:.1} s:"));
    let mut bad = Vec::new();
    for ((service, server), report) in servers.iter().zip(reports) {
        let moves = moves(&frames, server.ip());
        let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
        let beyond = beyond(&report.losses, &moves);
        measured(&format!(
            "    {service}: {lost} of {sent} connections lost, {beyond} of them not under way in one of {} moves; longest gap {gap:.0} ms",
            moves.len()
        ));
        if lost > LOST_MAX || moves.len() > MOVES_MAX {
            bad.push(told(service, &report, begun, &moves));
        }
    }
    let happened = happened?;
    if !bad.is_empty() {
        println!("{}", lab.kubectl(&SPEAKERS_SAID)?);
    }
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(happened)
}

/// What was lost, and when the address moved, in milliseconds after the client began.
fn told(service: &str, report: &Report, begun: Instant, moves: &[Instant]) -> String {
    let since = |when: &Instant| format!("{:.0}", when.duration_since(begun).as_secs_f64() * 1000.0);
    let [lost, moved] = [&report.losses, moves].map(|times| times.iter().map(since).collect::<Vec<_>>().join(" "));
    format!("{service}: lost were connections that began at {lost} ms; it moved at {moved} ms; {:?}", report.pods)
}

/// When another node than before said that it has the address.
fn moves(frames: &[Seen], address: IpAddr) -> Vec<Instant> {
    let said: Vec<(Instant, Mac)> =
        frames.iter().filter_map(|frame| Some((frame.at, capture::holder(&frame.bytes, address)?))).collect();
    said.windows(2).filter(|two| two[0].1 != two[1].1).map(|two| two[1].0).collect()
}

/// How many of the connections that were lost, by their beginnings, no move explains.
fn beyond(losses: &[Instant], moves: &[Instant]) -> usize {
    let under_way = |began: &Instant| {
        moves.iter().any(|moved| moved.checked_duration_since(*began).is_some_and(|age| age <= UNDER_WAY))
    };
    losses.iter().filter(|began| !under_way(began)).count()
}

#[test]
fn what_began_shortly_before_a_move_was_under_way_and_nothing_else() {
    let (moved, ms) = (wait::now() + Duration::from_secs(10), Duration::from_millis);
    for (began, expect) in
        [(moved - ms(201), 1), (moved - ms(200), 0), (moved, 0), (moved + ms(1), 1), (moved + ms(4_900), 0)]
    {
        assert_eq!(beyond(&[began], &[moved, moved + ms(5_000)]), expect, "{began:?}");
    }
    assert_eq!(beyond(&[moved], &[]), 1);
    assert_eq!(beyond(&[], &[moved]), 0);
}

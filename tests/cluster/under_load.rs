//! Connections of a client to a Service while a test causes an event: a new connection every 10 ms
//! before, during and after the event.

use crate::node_failure::{GAP_MAX, PROBE_INTERVAL};
use crate::pools::STATE_MAX;
use crate::scenario::print_measured;
use crate::segment;
use crate::services;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, ProbeReport, wait};
use std::net::IpAddr;
use std::time::Duration;

/// Maximum time for which the client connects if the event does not end.
const PROBE_TIME_MAX: Duration = Duration::from_secs(115);
/// Times for which the client connects before and after the event.
const BEFORE_EVENT: Duration = Duration::from_millis(300);
const AFTER_EVENT: Duration = Duration::from_millis(1200);
/// Maximum number of lost connections per move. A connection in progress is reset when its address
/// moves, because the old node has its NAT state. On an idle machine one in ten moves resets a
/// connection. On a busy machine, where a connection takes longer, a move may reset several.
const LOST_PER_MOVE_MAX: usize = 3;
/// Maximum number of connections that are lost without a move: rarely, a kernel still has the state
/// of an earlier connection from the same port.
const LOST_WITHOUT_MOVE_MAX: usize = 1;

/// Runs `event` while a client connects. Prints the client's result, and returns it with the result
/// of `event`.
pub(crate) fn probe_while<T>(
    lab: &Lab,
    address: impl Into<IpAddr>,
    name: &str,
    event: impl FnOnce() -> Result<T>,
) -> Result<(ProbeReport, T)> {
    let server = services::http(address);
    let probing = lab.start_probe(server, PROBE_TIME_MAX, PROBE_INTERVAL);
    lab.http_get(CLIENT, server, "/").context("the client gets no page before the event")?;
    wait::during(BEFORE_EVENT, || Ok(()))?;
    let result = event();
    wait::during(AFTER_EVENT, || Ok(()))?;
    let report = probing.stop()?;
    let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
    print_measured(&format!("{name}: {lost} of {sent} connections lost, longest gap {gap:.0} ms"));
    Ok((report, result?))
}

/// Runs [`probe_while`], and checks that the client lost at most [`LOST_PER_MOVE_MAX`] connections
/// for each of the planned `moves`, and that no gap between successful connections was too long.
pub(crate) fn run_without_loss<T>(
    lab: &Lab,
    address: impl Into<IpAddr>,
    (name, moves): (&str, usize),
    event: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (report, result) = probe_while(lab, address, name, event)?;
    ensure!(
        report.lost <= moves * LOST_PER_MOVE_MAX + LOST_WITHOUT_MOVE_MAX,
        "{} of {} connections were lost: {report:?}",
        report.lost,
        report.sent
    );
    let limit = GAP_MAX.as_secs_f64() * 1000.0;
    ensure!(report.longest_gap_ms < limit, "the longest gap is above {limit} ms: {report:?}");
    Ok(result)
}

/// Waits until exactly one node other than `from` replies for the address, and returns its name.
pub(crate) fn wait_moved(lab: &Lab, address: impl Into<IpAddr>, from: &str) -> Result<String> {
    let address = address.into();
    wait::until_heard(&format!("a node other than {from} owns {address}"), STATE_MAX, || {
        let now = segment::owner(lab, address)?;
        Ok((now != from).then_some(now))
    })
}

/// Checks that `owner` is the only host that replies for the address during `length`.
pub(crate) fn check_owner_stays(
    lab: &Lab,
    address: impl Into<IpAddr>,
    owner: &str,
    length: Duration,
) -> Result<()> {
    let address = address.into();
    wait::during(length, || {
        let now = segment::owner(lab, address)?;
        ensure!(now == owner, "{address} has moved from {owner} to {now}");
        Ok(())
    })
}

//! Connections of a client to a Service during an event: a new one every 10 ms before, during and
//! after it.

use crate::node_failure::{GAP_MAX, PROBE_STEP};
use crate::pools::STATE_MAX;
use crate::scenario::print_measured;
use crate::segment;
use crate::services;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, ProbeReport, wait};
use std::net::IpAddr;
use std::time::Duration;

/// Maximum length of the probe if the event does not end.
const LENGTH_MAX: Duration = Duration::from_secs(115);
/// Time of connections before and after the event.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(1200);
/// Maximum number of connections lost per move. A connection in progress is reset when its address
/// moves, because its translation state is on the old node. On a quiet machine one in ten moves
/// hits one. On a busy one, where a connection takes longer, a move may hit several.
const UNDER_WAY_MAX: usize = 3;
/// Maximum number of connections lost without a move. One in hundreds is lost now and then, because
/// a kernel still has state of an earlier connection from the same port.
const STRAY_MAX: usize = 1;

/// Runs `event` while a client connects, and prints the client's result.
pub(crate) fn watched<T>(
    lab: &Lab,
    address: impl Into<IpAddr>,
    name: &str,
    event: impl FnOnce() -> Result<T>,
) -> Result<(ProbeReport, T)> {
    let server = services::http(address);
    let probing = lab.start_probe(server, LENGTH_MAX, PROBE_STEP);
    lab.http_get(CLIENT, server, "/").context("a page before the event")?;
    wait::during(BEFORE, || Ok(()))?;
    let happened = event();
    wait::during(AFTER, || Ok(()))?;
    let report = probing.stop()?;
    let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
    print_measured(&format!("{name}: {lost} of {sent} connections lost, longest gap {gap:.0} ms"));
    Ok((report, happened?))
}

/// Runs [`watched`], and checks that the client lost only connections in progress during each of
/// the planned `moves`.
pub(crate) fn without_loss<T>(
    lab: &Lab,
    address: impl Into<IpAddr>,
    (name, moves): (&str, usize),
    event: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (report, happened) = watched(lab, address, name, event)?;
    ensure!(
        report.lost <= moves * UNDER_WAY_MAX + STRAY_MAX,
        "{} of {} connections were lost: {report:?}",
        report.lost,
        report.sent
    );
    let limit = GAP_MAX.as_secs_f64() * 1000.0;
    ensure!(report.longest_gap_ms < limit, "the gap is above {limit} ms: {report:?}");
    Ok(happened)
}

/// Waits until exactly one node other than `from` replies for the address, and returns its name.
pub(crate) fn wait_moved(lab: &Lab, address: impl Into<IpAddr>, from: &str) -> Result<String> {
    let address = address.into();
    wait::until(&format!("another owner of {address} than {from}"), STATE_MAX, || {
        let now = segment::owner(lab, address)?;
        Ok((now != from).then_some(now))
    })
}

/// Checks that the address stays on `owner` for `length`, and that no other node replies.
pub(crate) fn stays(
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

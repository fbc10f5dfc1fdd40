//! What a client sees of a Service while something happens: it connects anew every 10 ms, before, meanwhile and for some time after.

use crate::client_wire;
use crate::node_death::{GAP_MAX, PROBE_STEP};
use crate::pools::BRINGING_MAX;
use crate::services;
use crate::stage::measured;
use anyhow::{Context, Result, ensure};
use ferrolb_tests::topology::CLIENT;
use ferrolb_tests::{Lab, Report, wait};
use std::net::IpAddr;
use std::time::Duration;

/// How long the client goes on if what happens takes no end.
const LENGTH_MAX: Duration = Duration::from_secs(115);
/// How long it connects before anything happens, and after it has.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(1200);
/// A connection that is under way when its address moves is reset: the state of its translation is in the old node. On a quiet machine one
/// in ten moves meets one; on a busy one, where a connection takes longer, they may be several.
const UNDER_WAY_MAX: usize = 3;
/// One of hundreds is lost now and then although nothing moves, to what a kernel remembers of an earlier connection from the same port.
const STRAY_MAX: usize = 1;

/// Lets `event` happen under a client's eyes, and prints what it saw.
pub(crate) fn watched<T>(
    lab: &Lab,
    address: impl Into<IpAddr>,
    name: &str,
    event: impl FnOnce() -> Result<T>,
) -> Result<(Report, T)> {
    let server = services::http(address);
    let probing = lab.start_probe(server, LENGTH_MAX, PROBE_STEP);
    lab.http_get(CLIENT, server, "/").context("a page before the event")?;
    wait::during(BEFORE, || Ok(()))?;
    let happened = event();
    wait::during(AFTER, || Ok(()))?;
    let report = probing.stop()?;
    let (sent, lost, gap) = (report.sent, report.lost, report.longest_gap_ms);
    measured(&format!("{name}: {lost} of {sent} connections lost, longest gap {gap:.0} ms"));
    Ok((report, happened?))
}

/// [`watched`], and the client lost nothing but what was under way in the moment of each of so many planned moves.
pub(crate) fn unharmed<T>(
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

/// Waits until one node answers for the address that is not `from`; its name.
pub(crate) fn wait_moved(lab: &Lab, address: impl Into<IpAddr>, from: &str) -> Result<String> {
    let address = address.into();
    wait::until(&format!("another owner of {address} than {from}"), BRINGING_MAX, || {
        let now = client_wire::owner(lab, address)?;
        Ok((now != from).then_some(now))
    })
}

/// The address stays where it is for as long as `length`: no other node answers.
pub(crate) fn stays(lab: &Lab, address: impl Into<IpAddr>, owner: &str, length: Duration) -> Result<()> {
    let address = address.into();
    wait::during(length, || {
        let now = client_wire::owner(lab, address)?;
        ensure!(now == owner, "{address} has moved from {owner} to {now}");
        Ok(())
    })
}

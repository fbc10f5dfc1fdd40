//! Connections of a client through two routers while a test causes an event.

use crate::expect;
use crate::objects::{ADDRESSES, BGP_MAX};
use anyhow::{Result, ensure};
use ferrolb_lab::scenario::print_measured;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::{Lab, wait};
use std::net::SocketAddr;
use std::time::Duration;

/// Interval between the client's connections to each address, the time for which the client
/// connects before and after the event, and the maximum time for which the client connects.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
const PROBE_MARGIN: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(120);

/// Routes the client's packets for the first address through FRR, and for the second through BIRD.
pub(super) fn route_client(lab: &Lab) -> Result<()> {
    ADDRESSES
        .into_iter()
        .zip(ROUTERS)
        .try_for_each(|(address, router)| expect::route_client_through(lab, address, router))
}

/// Runs `event` while the client connects, and checks that no connection is lost.
pub(super) fn run_without_loss<T>(
    lab: &Lab,
    what: &str,
    event: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let servers = ADDRESSES.map(|address| SocketAddr::new(address, 80));
    for server in servers {
        wait::until("the client gets the page through a router", BGP_MAX, || {
            Ok((lab.http_get(CLIENT, server, "/")?.status == 200).then_some(()))
        })?;
    }
    let probing = servers.map(|server| lab.start_probe(server, PROBE_MAX, PROBE_INTERVAL));
    wait::during(PROBE_MARGIN, || Ok(()))?;
    let result = event();
    wait::during(PROBE_MARGIN, || Ok(()))?;
    let reports = probing.into_iter().map(|probe| probe.stop()).collect::<Result<Vec<_>>>()?;
    for (router, report) in ROUTERS.into_iter().zip(&reports) {
        print_measured(&format!(
            "{what}: {} of {} connections through {router} lost",
            report.lost, report.sent
        ));
    }
    let result = result?;
    ensure!(
        reports.iter().all(|report| report.lost == 0 && report.sent > 0),
        "{what}: connections were lost: {reports:?}"
    );
    Ok(result)
}

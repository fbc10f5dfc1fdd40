//! What becomes of the routes, and of who connects by them, while something happens.

use crate::expect;
use crate::objects::{ADDRESSES, BGP_MAX};
use anyhow::{Result, ensure};
use ferrolb_tests::stage::measured;
use ferrolb_tests::topology::CLIENT;
use ferrolb_tests::topology::routers::ROUTERS;
use ferrolb_tests::{Lab, wait};
use std::net::SocketAddr;
use std::time::Duration;

/// How often the client connects to each address, how long before and after what happens, and at most.
const STEP: Duration = Duration::from_millis(10);
const AROUND: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(120);

/// Each address has a way of its own: the first by FRR, the second by BIRD.
pub(super) fn lead(lab: &Lab) -> Result<()> {
    ADDRESSES.into_iter().zip(ROUTERS).try_for_each(|(address, router)| expect::lead(lab, address, router))
}

/// Lets `event` happen while the client connects: no connection is lost.
pub(super) fn unharmed<T>(lab: &Lab, what: &str, event: impl FnOnce() -> Result<T>) -> Result<T> {
    let servers = ADDRESSES.map(|address| SocketAddr::new(address, 80));
    for server in servers {
        wait::until("a page by a router", BGP_MAX, || {
            Ok((lab.http_get(CLIENT, server, "/")?.status == 200).then_some(()))
        })?;
    }
    let probing = servers.map(|server| lab.start_probe(server, PROBE_MAX, STEP));
    wait::during(AROUND, || Ok(()))?;
    let happened = event();
    wait::during(AROUND, || Ok(()))?;
    let reports = probing.into_iter().map(|probe| probe.stop()).collect::<Result<Vec<_>>>()?;
    for (router, report) in ROUTERS.into_iter().zip(&reports) {
        measured(&format!("{what}: {} of {} connections by {router} lost", report.lost, report.sent));
    }
    let happened = happened?;
    ensure!(reports.iter().all(|report| report.lost == 0 && report.sent > 0), "{what}: {reports:?}");
    Ok(happened)
}

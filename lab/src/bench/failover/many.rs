//! Rows of a node that owns many addresses: time from its power failure until another node has
//! announced the last of them on the client's network segment. An announcement redirects a client
//! that has the failed node in its neighbor table; the sender already replies for the address.
//!
//! One node owns all addresses, because the other nodes are cordoned. No client connects, so the
//! lab has no kube-proxies. A packet socket of the client receives the announcements. A run starts
//! when the speakers have sent their last announcement.

use super::runs::conclude_times;
use crate::bench::report::Findings;
use crate::bench::segment::{self, AnnouncementRecorder};
use crate::bench::services::{self, POOL, V4, V6};
use crate::bench::single_owner;
use crate::bench::targets::{FAILOVER_100, FAILOVER_1000, FAILOVER_V6_1000, MeasureSpec};
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::topology::Host;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Maximum time in which other nodes take all addresses.
const TAKEOVER_MAX: Duration = Duration::from_secs(30);

/// Runs these rows in a lab with FerroLB and no pool.
pub(super) fn run(lab: &Lab, runs: usize) -> Result<Findings> {
    let owner = single_owner::choose(lab)?;
    lab.apply(POOL)?;
    let mut findings = Findings::default();
    for (batch, count, families, measures) in [
        ("many100", 100, V4, &FAILOVER_100),
        ("many1000", 1000, V4, &FAILOVER_1000),
        ("many1000v6", 1000, V6, &FAILOVER_V6_1000),
    ] {
        let created =
            lab.api(async |client| services::create(&client, batch, count, &families).await)?;
        let addresses: Vec<IpAddr> = created.into_iter().flat_map(|it| it.addresses).collect();
        measure_runs(lab, &owner, &addresses, runs, measures, &mut findings)?;
        lab.api(async |client| services::remove(&client, batch).await)?;
    }
    Ok(findings)
}

/// Powers off the owner of `addresses` once per run.
pub(super) fn measure_runs(
    lab: &Lab,
    owner: &Host,
    addresses: &[IpAddr],
    runs: usize,
    measures: &[MeasureSpec; 2],
    findings: &mut Findings,
) -> Result<()> {
    let mut times = Vec::new();
    for number in 1..=runs {
        let time = measure_run(lab, owner, addresses);
        times.push(
            time.with_context(|| format!("run {number} of {runs}, {} addresses", addresses.len()))?,
        );
    }
    conclude_times(findings, measures, times)
}

/// Powers the owner off and returns the time until other nodes have announced all `addresses`, in
/// milliseconds.
fn measure_run(lab: &Lab, owner: &Host, addresses: &[IpAddr]) -> Result<f64> {
    single_owner::wait_settled(lab, owner, addresses.len())?;
    let (recorder, failed_mac) = (AnnouncementRecorder::start(lab)?, segment::mac(owner)?);
    let start = wait::now();
    lab.power_off(&owner.name)?;
    let announced = || {
        addresses.iter().map(|address| recorder.first_announcement_by_another(*address, failed_mac))
    };
    let last: Instant =
        wait::until("another node has announced every address", TAKEOVER_MAX, || {
            let missing = announced().filter(Option::is_none).count();
            ensure!(
                missing == 0,
                "{missing} of {} addresses are not announced by another node",
                addresses.len()
            );
            Ok(announced().flatten().max())
        })?;
    ensure!(
        announced().flatten().all(|at| at > start),
        "another node announced before the power cut"
    );
    recorder.stop()?;
    lab.power_on(&owner.name)?;
    lab.wait_healthy(&speaker_name(&owner.name), &owner.name, ADMIN_PORT, "/readyz")?;
    Ok((last - start).as_secs_f64() * 1000.0)
}

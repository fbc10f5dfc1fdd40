//! Selection of one node that owns all addresses of a lab. The other nodes are cordoned, so they
//! rank lower.

use super::services;
use super::settle::{self, SETTLE_MAX};
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER};
use crate::lab::admin::metric;
use crate::topology::{CONTROL_PLANE, Host};
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use ferrolb_proto::range::Family;
use std::net::IpAddr;
use std::time::Duration;

/// Index of the owner: the first node.
const OWNER_INDEX: u8 = 1;
/// Time without an announcement after which a speaker sends no more of them: the longest pause
/// between two announcements of an address is 3 s.
const SILENCE: Duration = Duration::from_secs(4);
/// Maximum time for which a speaker may announce: 10,000 addresses of both families, seven times,
/// at 2,500/s, take a minute.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Cordons all nodes but one, the future owner of all addresses, and returns that node.
pub(super) fn choose(lab: &Lab) -> Result<Host> {
    let owner = Host::node(OWNER_INDEX);
    for node in lab.nodes().iter().filter(|node| **node != owner.name) {
        lab.kubectl(&["cordon", node])?;
    }
    Ok(owner)
}

/// Starts the controller, creates Services, stops the controller, and returns the addresses of the
/// Services.
pub(super) fn create_services(
    lab: &Lab,
    batch: &str,
    count: usize,
    families: &[Family],
) -> Result<Vec<IpAddr>> {
    lab.start_controller(&[])?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
    let created =
        lab.api(async |client| services::create(&client, batch, count, families).await)?;
    lab.stop(CONTROLLER, Signal::TERM)?;
    Ok(created.into_iter().flat_map(|it| it.addresses).collect())
}

/// Waits until `owner` owns `addresses` addresses and has announced each of them for the last time.
pub(super) fn wait_settled(lab: &Lab, owner: &Host, addresses: usize) -> Result<()> {
    settle::wait_settled(lab)?;
    settle::wait_for_owner(lab, &owner.name, i64::try_from(addresses)?, SETTLE_MAX)?;
    let sent = || -> Result<Vec<f64>> {
        lab.nodes()
            .iter()
            .map(|node| metric(lab, node, "ferrolb_speaker_gratuitous_sent_total"))
            .collect()
    };
    wait::until("all speakers stop announcing", SILENCE_MAX, || {
        let before = sent()?;
        wait::during(SILENCE, || Ok(()))?;
        ensure!(sent()? == before, "a speaker still sends announcements");
        Ok(Some(()))
    })
}

//! Selection of one node that owns all addresses of a lab. The other nodes are cordoned, so they
//! rank lower.

use super::services;
use super::settle::{self, REST_MAX};
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER};
use crate::lab::admin::metric;
use crate::topology::{CONTROL_PLANE, Host};
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use ferrolb_proto::range::Family;
use std::net::IpAddr;
use std::time::Duration;

/// Index of the owner: the first node.
const OWNER: u8 = 1;
/// Time without an announcement after which a speaker has finished: the longest pause between two
/// announcements of an address is 3 s.
const SILENCE: Duration = Duration::from_secs(4);
/// Maximum time for which a speaker may announce: 10,000 addresses of both families, seven times,
/// at 2,500/s, take a minute.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Cordons all nodes but one, the future owner of all addresses, and returns that node.
pub(super) fn choose(lab: &Lab) -> Result<Host> {
    let holder = Host::node(OWNER);
    for node in lab.nodes().iter().filter(|node| **node != holder.name) {
        lab.kubectl(&["cordon", node])?;
    }
    Ok(holder)
}

/// Creates Services in a lab whose controller runs only meanwhile, and returns their addresses.
pub(super) fn make(
    lab: &Lab,
    batch: &str,
    count: usize,
    families: &[Family],
) -> Result<Vec<IpAddr>> {
    lab.start_controller(&[])?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
    let made = lab.api(async |client| services::create(&client, batch, count, families).await)?;
    lab.stop(CONTROLLER, Signal::TERM)?;
    Ok(made.into_iter().flat_map(|it| it.addresses).collect())
}

/// Waits until the node owns this many addresses and all of them were announced for the last time.
pub(super) fn wait_settled(lab: &Lab, holder: &Host, addresses: usize) -> Result<()> {
    settle::wait_for(lab)?;
    settle::wait_for_owner(lab, &holder.name, i64::try_from(addresses)?, REST_MAX)?;
    let sent = || -> Result<Vec<f64>> {
        lab.nodes()
            .iter()
            .map(|node| metric(lab, node, "ferrolb_speaker_gratuitous_sent_total"))
            .collect()
    };
    wait::until("the speakers stop announcing", SILENCE_MAX, || {
        let before = sent()?;
        wait::during(SILENCE, || Ok(()))?;
        ensure!(sent()? == before, "they still announce");
        Ok(Some(()))
    })
}

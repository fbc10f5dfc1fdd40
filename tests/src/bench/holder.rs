//! One node that owns all addresses of a lab: the others are cordoned, which makes each of them a worse owner than it.

use super::rest::{self, REST_MAX};
use super::services;
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER};
use crate::lab::admin::metric;
use crate::topology::{CONTROL_PLANE, Host};
use crate::{Lab, Signal, wait};
use anyhow::{Result, ensure};
use ferrolb_proto::range::Family;
use std::net::IpAddr;
use std::time::Duration;

/// Who it is: the first node.
const HOLDER: u8 = 1;
/// A speaker that has announced nothing for so long is done: no pause between two announcements of an address is longer than 3 s.
const SILENCE: Duration = Duration::from_secs(4);
/// How long a speaker may announce: 10,000 addresses of both families, seven times, at 2,500 a second, take a minute.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Cordons all nodes but one, which is to own all; who that is.
pub(super) fn choose(lab: &Lab) -> Result<Host> {
    let holder = Host::node(HOLDER);
    for node in lab.nodes().iter().filter(|node| **node != holder.name) {
        lab.kubectl(&["cordon", node])?;
    }
    Ok(holder)
}

/// Makes Services in a lab whose controller runs for no longer than that; their addresses.
pub(super) fn make(lab: &Lab, batch: &str, count: usize, families: &[Family]) -> Result<Vec<IpAddr>> {
    lab.start_controller(&[])?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
    let made = lab.api(async |client| services::create(&client, batch, count, families).await)?;
    lab.stop(CONTROLLER, Signal::TERM)?;
    Ok(made.into_iter().flat_map(|it| it.addresses).collect())
}

/// Waits until it owns so many addresses, and all of them were announced for the last time.
pub(super) fn wait_settled(lab: &Lab, holder: &Host, addresses: usize) -> Result<()> {
    rest::wait_for(lab)?;
    rest::wait_for_owner(lab, &holder.name, i64::try_from(addresses)?, REST_MAX)?;
    let sent = || -> Result<Vec<f64>> {
        lab.nodes().iter().map(|node| metric(lab, node, "ferrolb_speaker_gratuitous_sent_total")).collect()
    };
    wait::until("the speakers announce no more", SILENCE_MAX, || {
        let before = sent()?;
        wait::during(SILENCE, || Ok(()))?;
        ensure!(sent()? == before, "they still do");
        Ok(Some(()))
    })
}

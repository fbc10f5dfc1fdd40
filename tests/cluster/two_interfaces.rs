//! A node with two interfaces on one segment uses only one of them, because both would compete for
//! its addresses.

use crate::frame_log::{self, FrameLog};
use crate::pools::STATE_MAX;
use crate::scenario::{run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services;
use anyhow::{Result, ensure};
use ferrolb_lab::topology::SWITCH;
use ferrolb_lab::{Lab, Options, run, wait};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Time until the speaker finds that two interfaces are on one segment: the second listens for a
/// second first.
const FOUND_MAX: Duration = Duration::from_secs(5);
/// Time for which the segment is observed after that.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn a_node_with_two_interfaces_on_one_segment_replies_on_one_of_them() {
    run_scenario(&Options { nodes: 2, ..Options::named("onewire") }, |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        services::apply_pool_and_pod(lab, "node1")?;
        let address = services::serve(lab, "web")?;
        let owner = segment::wait_owner(lab, address)?;
        step("the owner gets a second link to the same switch", || second_link(lab, &owner))?;
        wait::during(FOUND_MAX, || Ok(()))?;
        step("the first answers, and only that", || {
            let (answering, evidence) = FrameLog::of(lab, &keys, || watch(lab, address))?;
            ensure!(answering == [owner.clone()].into(), "{answering:?} reply");
            let claims = evidence.claims(address);
            ensure!(claims.is_empty(), "there were claims: {claims:?}");
            Ok(())
        })?;
        step("the first goes down: the second, or the other node, answers, and only one", || {
            lab.set_link(&owner, false)?;
            wait::until("one that answers", STATE_MAX, || {
                let answering = watch_once(lab, address)?;
                ensure!(answering.len() == 1 && !answering.contains(&owner), "{answering:?} reply");
                Ok(Some(()))
            })
        })
    });
}

fn second_link(lab: &Lab, node: &str) -> Result<()> {
    let namespace = lab.state().name.namespace(node);
    let batch = format!(
        "link add second type veth peer name eth1 netns {namespace}\nlink set second master br0 up\n"
    );
    run::ip_batch(Some(&lab.state().name.namespace(SWITCH)), &batch)?;
    let batch = "link set eth1 up\naddress add 172.30.0.99/24 dev eth1 noprefixroute\n";
    run::ip_batch(Some(&namespace), batch)
}

/// Returns the hosts that reply for the address over some seconds.
fn watch(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<String>> {
    let (mut wire, mut answering) = (SegmentSocket::open(lab)?, BTreeSet::new());
    wait::during(WATCHED, || {
        answering.append(&mut wire.replying(address)?);
        Ok(())
    })?;
    Ok(answering.into_iter().map(|mac| segment::host_name(lab, mac)).collect())
}

fn watch_once(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<String>> {
    Ok(SegmentSocket::open(lab)?
        .replying(address)?
        .into_iter()
        .map(|mac| segment::host_name(lab, mac))
        .collect())
}

//! A node with two interfaces on one segment announces on one of them only, because both would
//! compete for its addresses.

use crate::frame_log::{self, FrameLog};
use crate::pools::STATE_MAX;
use crate::scenario::{run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services;
use crate::speakers::wait_for;
use anyhow::{Result, ensure};
use ferrolb_lab::topology::SWITCH;
use ferrolb_lab::{Lab, Options, run, wait};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Time for which the test collects replies after the detection.
const OBSERVED: Duration = Duration::from_secs(5);

#[test]
fn a_node_with_two_interfaces_on_a_segment_uses_one_of_them() {
    run_scenario(&Options { nodes: 2, ..Options::named("onesegment") }, |lab| {
        lab.start_ferrolb()?;
        let keys = frame_log::keys(lab)?;
        services::apply_pool_and_pod(lab, "node1")?;
        let address = services::serve(lab, "web")?;
        let owner = segment::wait_owner(lab, address)?;
        step("the owner gets a second interface on the same segment", || {
            add_second_interface(lab, &owner)?;
            wait_for(lab, &owner, "the second interface is on standby", |status| {
                status.interfaces.iter().any(|interface| interface.standby).then_some(())
            })
        })?;
        step("only the first interface replies", || {
            let (replying, evidence) =
                FrameLog::of(lab, &keys, || replying_hosts_during(lab, address))?;
            ensure!(replying == [owner.clone()].into(), "these hosts reply: {replying:?}");
            let claims = evidence.claims(address);
            ensure!(claims.is_empty(), "a speaker claimed the address: {claims:?}");
            Ok(())
        })?;
        step(
            "the first interface goes down: either the second one or the other node replies",
            || {
                lab.set_link(&owner, false)?;
                wait::until("exactly one other host replies", STATE_MAX, || {
                    let replying = replying_hosts(lab, address)?;
                    ensure!(
                        replying.len() == 1 && !replying.contains(&owner),
                        "these hosts reply: {replying:?}"
                    );
                    Ok(Some(()))
                })
            },
        )
    });
}

fn add_second_interface(lab: &Lab, node: &str) -> Result<()> {
    let namespace = lab.state().name.namespace(node);
    let batch = format!(
        "link add second type veth peer name eth1 netns {namespace}\nlink set second master br0 up\n"
    );
    run::ip_batch(Some(&lab.state().name.namespace(SWITCH)), &batch)?;
    let batch = "link set eth1 up\naddress add 172.30.0.99/24 dev eth1 noprefixroute\n";
    run::ip_batch(Some(&namespace), batch)
}

/// Returns the hosts that reply for the address during [`OBSERVED`].
fn replying_hosts_during(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<String>> {
    let (mut socket, mut macs) = (SegmentSocket::open(lab)?, BTreeSet::new());
    wait::during(OBSERVED, || {
        macs.append(&mut socket.replying(address)?);
        Ok(())
    })?;
    Ok(macs.into_iter().map(|mac| segment::host_name(lab, mac)).collect())
}

/// Returns the hosts that currently reply for the address.
fn replying_hosts(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<String>> {
    Ok(SegmentSocket::open(lab)?
        .replying(address)?
        .into_iter()
        .map(|mac| segment::host_name(lab, mac))
        .collect())
}

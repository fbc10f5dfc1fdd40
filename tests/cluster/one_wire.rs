//! A node with two links on one wire speaks on one of them: its two ends must not compete for its addresses.

use crate::client_wire::{self, Wire};
use crate::evidence::{self, Evidence};
use crate::pools::BRINGING_MAX;
use crate::services;
use crate::stage::{play, step};
use anyhow::{Result, ensure};
use ferrolb_tests::topology::SWITCH;
use ferrolb_tests::{Lab, Options, run, wait};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long two links may take to find out that they are on one wire: the second listens for a second first.
const FOUND_MAX: Duration = Duration::from_secs(5);
/// How long the wire is watched after that.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn a_node_with_two_links_on_one_wire_answers_on_one_of_them() {
    play(&Options { nodes: 2, ..Options::named("onewire") }, |lab| {
        lab.start_ferrolb()?;
        let keys = evidence::keys(lab)?;
        services::furnish(lab, "node1")?;
        let address = services::serve(lab, "web")?;
        let owner = client_wire::wait_owner(lab, address)?;
        step("the owner gets a second link to the same switch", || second_link(lab, &owner))?;
        wait::during(FOUND_MAX, || Ok(()))?;
        step("the first answers, and only that", || {
            let (answering, evidence) = Evidence::of(lab, &keys, || watch(lab, address))?;
            ensure!(answering == [owner.clone()].into(), "{answering:?} answer");
            let claims = evidence.claims(address);
            ensure!(claims.is_empty(), "there were claims: {claims:?}");
            Ok(())
        })?;
        step("the first goes down: the second, or the other node, answers, and only one", || {
            lab.set_link(&owner, false)?;
            wait::until("one that answers", BRINGING_MAX, || {
                let answering = watch_once(lab, address)?;
                ensure!(answering.len() == 1 && !answering.contains(&owner), "{answering:?} answer");
                Ok(Some(()))
            })
        })
    });
}

fn second_link(lab: &Lab, node: &str) -> Result<()> {
    let namespace = lab.state().name.namespace(node);
    let batch = format!("link add second type veth peer name eth1 netns {namespace}\nlink set second master br0 up\n");
    run::ip_batch(Some(&lab.state().name.namespace(SWITCH)), &batch)?;
    let batch = "link set eth1 up\naddress add 172.30.0.99/24 dev eth1 noprefixroute\n";
    run::ip_batch(Some(&namespace), batch)
}

/// Who answers for the address, over some seconds.
fn watch(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<String>> {
    let (mut wire, mut answering) = (Wire::open(lab)?, BTreeSet::new());
    wait::during(WATCHED, || {
        answering.append(&mut wire.answering(address)?);
        Ok(())
    })?;
    Ok(answering.into_iter().map(|mac| client_wire::named(lab, mac)).collect())
}

fn watch_once(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<String>> {
    Ok(Wire::open(lab)?.answering(address)?.into_iter().map(|mac| client_wire::named(lab, mac)).collect())
}

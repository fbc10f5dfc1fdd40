//! The power of everything goes and comes back: nobody claims before it has listened, each address gets one owner, and the pages are back.

use crate::client_wire;
use crate::evidence::{self, Evidence};
use crate::metrics::metric;
use crate::services::{self, WEB, http};
use crate::stage::{measured, play, step};
use anyhow::{Result, ensure};
use ferrolb_proto::claim::LISTEN;
use ferrolb_tests::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_tests::{Lab, Options, wait};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How many Services there are.
const SERVICES: usize = 6;
/// How long a whole cluster may take to come back, on a busy machine.
const BACK_MAX: Duration = Duration::from_secs(60);
/// By so much the frame that begins a speaker's listening may be late on the wire.
const LATE: Duration = Duration::from_millis(100);

#[test]
fn after_a_power_cut_of_everything_each_address_has_one_owner_that_listened_first() {
    play(&Options::named("powercut"), |lab| {
        lab.start_ferrolb()?;
        services::furnish(lab, "node1")?;
        lab.pod("web2", "node2", &WEB)?;
        let names: Vec<String> = (1..=SERVICES).map(|number| format!("web{number}")).collect();
        let addresses = names.iter().map(|name| services::serve(lab, name)).collect::<Result<Vec<_>>>()?;
        step("each address has an owner", || owners(lab, &addresses))?;
        let keys = evidence::keys(lab)?;
        let hosts: Vec<String> = lab.nodes().into_iter().chain([CONTROL_PLANE.to_owned()]).collect();
        let ((), evidence) = step("the power of all hosts goes and comes back", || {
            hosts.iter().try_for_each(|host| lab.power_off(host))?;
            Evidence::of(lab, &keys, || {
                let start = wait::now();
                hosts.iter().try_for_each(|host| lab.power_on(host))?;
                let first = wait::until("the first page", BACK_MAX, || {
                    let page = lab.http_get(CLIENT, http(addresses[0]), "/")?;
                    Ok((page.status == 200).then(|| start.elapsed()))
                })?;
                measured(&format!("power cut of everything: the first page after {first:?}"));
                owners(lab, &addresses)
            })
        })?;
        step("no speaker claimed before it had listened", || {
            for node in lab.nodes() {
                let lives = evidence.lives(&node);
                ensure!(lives.len() == 1, "the speaker of {node} came to life {} times", lives.len());
                for (first, claim) in lives {
                    let listened = claim.map(|claim| claim.at.saturating_duration_since(first.at));
                    ensure!(listened.is_none_or(|time| time + LATE >= LISTEN), "{node} claimed after {listened:?}");
                }
            }
            let claims: Vec<_> = addresses.iter().map(|address| evidence.claims(*address).len()).collect();
            measured(&format!("power cut of everything: the addresses were claimed {claims:?} times"));
            ensure!(claims.iter().all(|count| *count > 0), "an address was answered for without a claim");
            Ok(())
        })
    });
}

/// Waits until each address has one owner, and the speakers hold no more than that.
fn owners(lab: &Lab, addresses: &[Ipv4Addr]) -> Result<()> {
    wait::until("one owner each", BACK_MAX, || {
        let owned = |node: &String| metric(lab, node, "ferrolb_speaker_owned_addresses");
        let owned = lab.nodes().iter().map(owned).collect::<Result<Vec<f64>>>()?;
        ensure!(owned.iter().sum::<f64>() == addresses.len() as f64, "of {} they hold {owned:?}", addresses.len());
        Ok(Some(()))
    })?;
    addresses.iter().try_for_each(|address| client_wire::wait_owner(lab, *address).map(drop))
}

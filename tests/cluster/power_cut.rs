//! Power cut of the whole cluster: each speaker listens before it claims, each address gets one
//! owner, and clients get the pages again.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_speaker_core::claim::LISTEN_PHASE;

use crate::frame_log::{self, FrameLog};
use crate::metrics::metric;
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::services::{self, WEB, http};

/// Number of Services.
const SERVICES: usize = 6;
/// Maximum time until the whole cluster works again, on a busy machine.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// Maximum time between the start of a speaker's listen phase and its first frame.
const FIRST_FRAME_DELAY_MAX: Duration = Duration::from_millis(100);

#[test]
fn each_address_has_one_owner_after_a_cluster_power_cut() {
    run_scenario(&Options::named("powercut"), |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node1")?;
        lab.pod("web2", "node2", &WEB)?;
        let names: Vec<String> = (1..=SERVICES).map(|number| format!("web{number}")).collect();
        let addresses =
            names.iter().map(|name| services::serve(lab, name)).collect::<Result<Vec<_>>>()?;
        step("each address has an owner", || wait_owners(lab, &addresses))?;
        let keys = frame_log::keys(lab)?;
        let hosts: Vec<String> =
            lab.nodes().into_iter().chain([CONTROL_PLANE.to_owned()]).collect();
        let ((), evidence) = step("all hosts are powered off and on again", || {
            hosts.iter().try_for_each(|host| lab.power_off(host))?;
            FrameLog::of(lab, &keys, || {
                let start = wait::now();
                hosts.iter().try_for_each(|host| lab.power_on(host))?;
                let first = wait::until("the client gets the first page", RECOVERY_MAX, || {
                    let page = lab.http_get(CLIENT, http(addresses[0]), "/")?;
                    Ok((page.status == 200).then(|| start.elapsed()))
                })?;
                print_measured(&format!("cluster power cut: the first page after {first:?}"));
                wait_owners(lab, &addresses)
            })
        })?;
        step("no speaker claims before the end of its listen phase", || {
            for node in lab.nodes() {
                let epochs = evidence.epochs(&node);
                ensure!(epochs.len() == 1, "the speaker of {node} started {} times", epochs.len());
                for (first, claim) in epochs {
                    let listened = claim.map(|claim| claim.at.saturating_duration_since(first.at));
                    ensure!(
                        listened.is_none_or(|time| time + FIRST_FRAME_DELAY_MAX >= LISTEN_PHASE),
                        "the speaker of {node} claimed an address after {listened:?}"
                    );
                }
            }
            let claims: Vec<_> =
                addresses.iter().map(|address| evidence.claims(*address).len()).collect();
            print_measured(&format!(
                "cluster power cut: the addresses were claimed {claims:?} times"
            ));
            ensure!(
                claims.iter().all(|count| *count > 0),
                "an address was announced without a claim"
            );
            Ok(())
        })
    });
}

/// Waits until each address has one owner, and the speakers report no other owned addresses.
fn wait_owners(lab: &Lab, addresses: &[Ipv4Addr]) -> Result<()> {
    wait::until("each address has one owner", RECOVERY_MAX, || {
        let owned = |node: &String| metric(lab, node, "ferrolb_speaker_owned_addresses");
        let owned = lab.nodes().iter().map(owned).collect::<Result<Vec<f64>>>()?;
        ensure!(
            owned.iter().sum::<f64>() == addresses.len() as f64,
            "the Services have {} addresses, but the nodes own {owned:?}",
            addresses.len()
        );
        Ok(Some(()))
    })?;
    addresses.iter().try_for_each(|address| segment::wait_owner(lab, *address).map(drop))
}

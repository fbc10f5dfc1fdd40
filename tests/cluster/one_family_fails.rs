//! Pods that stay ready and refuse connections of one IP family. The health check of a dual-stack
//! Service moves both addresses together to a node where both families are served. Clients of the
//! other family lose nothing.

use crate::health_checks::{CHECK, MOVED_MAX, pod};
use crate::pools::{self, STATE_MAX};
use crate::scenario::{print_measured, step};
use crate::segment;
use crate::services::{self, service};
use crate::speakers::wait_for;
use crate::under_load::{stays, wait_moved, without_loss};
use anyhow::{Result, ensure};
use ferrolb_lab::topology::{CLIENT, POD_PORT};
use ferrolb_lab::{Lab, wait};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

const ADDRESSES: [&str; 2] = ["172.30.0.210", "fd30::210"];
/// Time in which nothing may move.
const SETTLED: Duration = Duration::from_secs(2);

/// An IP family: its name in nftables, and the Service's address of it.
#[derive(Clone, Copy)]
struct FamilyAddress {
    table: &'static str,
    address: IpAddr,
}

/// Runs the steps. On each node a pod with the name [`pod`] serves both families.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    let side =
        |table, address: &str| anyhow::Ok(FamilyAddress { table, address: address.parse()? });
    let (v4, v6) = (side("ip", ADDRESSES[0])?, side("ip6", ADDRESSES[1])?);
    step("a Service of both families is served", || serve(lab, [v4, v6]))?;
    step("the owner's pod refuses IPv6: both addresses move, and IPv4 loses nothing", || {
        refused(lab, v6, v4)
    })?;
    step("and the other way round", || refused(lab, v4, v6))?;
    services::delete(lab, "both")
}

fn serve(lab: &Lab, sides: [FamilyAddress; 2]) -> Result<()> {
    let dual = json!({
        "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
    });
    let mut both = service("both", dual);
    both["metadata"]["annotations"] = json!({CHECK: "tcp", "ferrolb.io/address-pool": "both"});
    lab.apply_objects(&[pools::pool("both", &ADDRESSES), both])?;
    services::wait_addresses(lab, "both", &ADDRESSES)?;
    wait::until("the pages of both families", STATE_MAX, || {
        for side in sides {
            let page = lab.http_get(CLIENT, services::http(side.address), "/")?;
            ensure!(page.status == 200, "{page:?}");
        }
        Ok(Some(()))
    })
}

/// Refuses a family on the owner's pod for a while. Both addresses move to the same other node, and
/// clients of the other family lose nothing.
fn refused(lab: &Lab, side: FamilyAddress, other: FamilyAddress) -> Result<()> {
    let node = segment::wait_owner(lab, side.address)?;
    without_loss(
        lab,
        other.address,
        (&format!("{} refused, the other family", side.table), 1),
        || {
            let start = wait::now();
            refuse(lab, &node, side, true)?;
            let second = wait_moved(lab, side.address, &node)?;
            let after = start.elapsed();
            print_measured(&format!(
                "{} refused: its address is elsewhere after {:.1} s",
                side.table,
                after.as_secs_f64()
            ));
            ensure!(after < MOVED_MAX, "it took {after:?}");
            status_names_endpoint(lab, &node, side)?;
            let together = segment::wait_owner(lab, other.address)?;
            ensure!(
                together == second,
                "{} is at {second}, and {} at {together}",
                side.address,
                other.address
            );
            stays(lab, side.address, &second, SETTLED)
        },
    )?;
    refuse(lab, &node, side, false)?;
    wait_for(lab, &node, "nothing fails", |status| {
        status.failing_health_checks.is_empty().then_some(())
    })
}

/// Waits until the status of a node names the endpoint of this family.
fn status_names_endpoint(lab: &Lab, node: &str, side: FamilyAddress) -> Result<()> {
    let all = lab.kubectl(&["get", "pod", &pod(node), "-o", "jsonpath={.status.podIPs[*].ip}"])?;
    let is_v6 = side.address.is_ipv6();
    let own =
        all.split_whitespace().find(|address| address.contains(':') == is_v6).unwrap_or_default();
    let endpoint = if is_v6 { format!("[{own}]:{POD_PORT}") } else { format!("{own}:{POD_PORT}") };
    wait_for(lab, node, &format!("{endpoint} of both fails"), |status| {
        status
            .failing_health_checks
            .iter()
            .find(|failing| failing.name == "both" && failing.endpoint == endpoint)
            .map(drop)
    })
}

/// Makes a node's pod refuse connections of a family, or accept them again.
fn refuse(lab: &Lab, node: &str, side: FamilyAddress, refuses: bool) -> Result<()> {
    let table = format!("{} refusal", side.table);
    let rule = format!("tcp dport {POD_PORT} reject with tcp reset");
    let change = if refuses {
        format!("table {table} {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}")
    } else {
        format!("delete table {table}")
    };
    lab.exec(&pod(node), &["nft", &change]).map(drop)
}

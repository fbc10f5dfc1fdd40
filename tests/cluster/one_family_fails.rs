//! Pods that stay ready and refuse connections of one IP family: the health check of a dual-stack
//! Service moves the address of that family to a node whose pod serves it. The address of the other
//! family stays, and its clients lose nothing.

use crate::health_checks::{HEALTH_CHECK_ANNOTATION, MOVED_MAX, pod};
use crate::pools::{self, STATE_MAX};
use crate::scenario::{print_measured, step};
use crate::segment;
use crate::services::{self, service};
use crate::speakers::wait_for;
use crate::under_load::{check_owner_stays, run_without_loss, wait_moved};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, POD_PORT};
use ferrolb_lab::wait::WorkClock;
use ferrolb_lab::{Lab, wait};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

const ADDRESSES: [&str; 2] = ["172.30.0.210", "fd30::210"];
/// Time for which the addresses must stay after a move.
const SETTLED: Duration = Duration::from_secs(2);

/// An IP family: its name in nftables, and the Service's address of that family.
#[derive(Clone, Copy)]
struct FamilyAddress {
    family: &'static str,
    address: IpAddr,
}

/// Runs the steps. They require that a pod with the name [`pod`] serves both families on each node.
pub(crate) fn part(lab: &Lab) -> Result<()> {
    let parse =
        |family, address: &str| anyhow::Ok(FamilyAddress { family, address: address.parse()? });
    let (v4, v6) = (parse("ip", ADDRESSES[0])?, parse("ip6", ADDRESSES[1])?);
    step("a dual-stack Service is served", || serve(lab, [v4, v6]))?;
    step(
        "the owner's pod refuses IPv6: its address moves, and IPv4 stays and loses nothing",
        || check_failover(lab, v6, v4),
    )?;
    step(
        "the owner's pod refuses IPv4: its address moves, and IPv6 stays and loses nothing",
        || check_failover(lab, v4, v6),
    )?;
    services::delete(lab, "both")
}

fn serve(lab: &Lab, families: [FamilyAddress; 2]) -> Result<()> {
    let dual = json!({
        "externalTrafficPolicy": "Local", "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
    });
    let mut object = service("both", dual);
    object["metadata"]["annotations"] =
        json!({HEALTH_CHECK_ANNOTATION: "tcp", "ferrolb.io/address-pool": "both"});
    lab.apply_objects(&[pools::pool("both", &ADDRESSES), object])?;
    services::wait_addresses(lab, "both", &ADDRESSES)?;
    wait::until("the client gets the pages of both families", STATE_MAX, || {
        for family in families {
            let page = lab.http_get(CLIENT, services::http(family.address), "/")?;
            ensure!(page.status == 200, "the client gets {page:?}");
        }
        Ok(Some(()))
    })
}

/// Refuses connections of one family on the owner's pod, and checks that the address of this family
/// moves, that the other address stays, and that its clients lose nothing.
fn check_failover(lab: &Lab, failing: FamilyAddress, other: FamilyAddress) -> Result<()> {
    let node = segment::wait_owner(lab, failing.address)?;
    let other_owner = segment::wait_owner(lab, other.address)?;
    run_without_loss(
        lab,
        other.address,
        (&format!("{} refused, the other family", failing.family), 1),
        || {
            let start = WorkClock::start();
            set_refusal(lab, &node, failing, true)?;
            let second = wait_moved(lab, failing.address, &node)?;
            let after = start.within(MOVED_MAX).context("the address moves")?;
            print_measured(&format!(
                "{} refused: the address has moved after {:.1} s",
                failing.family,
                after.as_secs_f64()
            ));
            status_names_endpoint(lab, &node, failing)?;
            check_owner_stays(lab, failing.address, &second, SETTLED)?;
            let owner = segment::wait_owner(lab, other.address)?;
            ensure!(owner == other_owner, "{} moved from {other_owner} to {owner}", other.address);
            Ok(())
        },
    )?;
    set_refusal(lab, &node, failing, false)?;
    wait_for(lab, &node, "no endpoint fails", |status| {
        status.failing_health_checks.is_empty().then_some(())
    })
}

/// Waits until the SpeakerStatus of a node names the failing endpoint of this family.
fn status_names_endpoint(lab: &Lab, node: &str, failing: FamilyAddress) -> Result<()> {
    let pod_addresses =
        lab.kubectl(&["get", "pod", &pod(node), "-o", "jsonpath={.status.podIPs[*].ip}"])?;
    let is_v6 = failing.address.is_ipv6();
    let pod_address = pod_addresses
        .split_whitespace()
        .find(|address| address.contains(':') == is_v6)
        .unwrap_or_default();
    let endpoint = if is_v6 {
        format!("[{pod_address}]:{POD_PORT}")
    } else {
        format!("{pod_address}:{POD_PORT}")
    };
    wait_for(lab, node, &format!("the status reports that {endpoint} fails"), |status| {
        status
            .failing_health_checks
            .iter()
            .find(|service| service.name == "both" && service.endpoint == endpoint)
            .map(drop)
    })
}

/// Makes a node's pod refuse connections of a family, or accept them again.
fn set_refusal(lab: &Lab, node: &str, failing: FamilyAddress, refuse: bool) -> Result<()> {
    let table = format!("{} refusal", failing.family);
    let rule = format!("tcp dport {POD_PORT} reject with tcp reset");
    let change = if refuse {
        format!("table {table} {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}")
    } else {
        format!("delete table {table}")
    };
    lab.exec(&pod(node), &["nft", &change]).map(drop)
}

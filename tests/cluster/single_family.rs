//! IPv4-only and IPv6-only clusters, from the installation to the failure of an owner: FerroLB
//! needs nothing of the other family.

use crate::node_failure::{PROBE_TIME, check_longest_gap, probe_during, serve_from_other_node};
use crate::scenario::{run_scenario, step};
use crate::services::{self, service, wait_announced};
use crate::under_load::run_without_loss;
use crate::{pools, segment};
use anyhow::{Result, ensure};
use ferrolb_lab::topology::{CLIENT, Families};
use ferrolb_lab::{Lab, Options, Signal, netns, wait};
use serde_json::json;
use std::net::IpAddr;

/// Address of the second Service in an IPv4-only and in an IPv6-only cluster.
const SECOND_ADDRESS: [&str; 2] = ["172.30.0.201", "fd30::201"];

#[test]
fn an_ipv4_only_cluster_is_served_and_fails_over() {
    let ranges = ["fd30:", "fd44:", "fd96:", "fe80:"];
    run_single_family(Families::V4, "v4only", ("-6", ""), &ranges);
}

#[test]
fn an_ipv6_only_cluster_is_served_and_fails_over() {
    let ranges = ["172.30.", "10.244.", "10.96."];
    run_single_family(Families::V6, "v6only", ("-4", "127.0.0.1/8"), &ranges);
}

/// Runs the scenario. `other` is the flag of `ip` for the other family, and the only address of
/// that family that a host may have. `ranges` are the beginnings of the other family's addresses.
fn run_single_family(families: Families, name: &str, other: (&str, &str), ranges: &[&str]) {
    run_scenario(&Options { families, ..Options::named(name) }, |lab| {
        step("FerroLB starts", || lab.start_ferrolb())?;
        let (address, owner) =
            step("a Service is served by a pod that is not on the owner", || {
                serve_from_other_node(lab)
            })?;
        step("the condition names the owner", || {
            wait_announced(lab, "web", "Announced", &format!("{address} from {owner} (eth0)"))
                .map(drop)
        })?;
        step("a PreferDualStack Service gets an address of the only family", || {
            serve_prefer_dual_stack(lab)
        })?;
        step("the client gets the pages of both Services", || {
            wait_page(lab, address)?;
            wait_page(lab, lab.families().first(SECOND_ADDRESS).parse()?)
        })?;
        step(
            "no host, pod or object has an address of the other family, and no warning is logged",
            || {
                check_no_other_family(lab, other, ranges)?;
                check_no_warnings(lab)
            },
        )?;
        step("the client's neighbor entry is the owner", || {
            segment::wait_neighbor_entry(lab, address, &owner)
        })?;
        step("the owner loses power", || {
            let off = || lab.power_off(&owner);
            check_longest_gap(&probe_during(
                lab,
                address,
                &format!("{families}: owner powered off"),
                PROBE_TIME,
                off,
            )?)
        })?;
        let second = segment::wait_owner(lab, address)?;
        ensure!(second != owner, "{owner} is powered off and still owns the address");
        segment::wait_neighbor_entry(lab, address, &second)?;
        step(
            "the next owner's speaker is stopped, and only connections in progress are lost",
            || {
                let stop = || lab.stop(&format!("speaker-{second}"), Signal::TERM);
                run_without_loss(
                    lab,
                    address,
                    (&format!("{families}: speaker of the owner stopped"), 1),
                    stop,
                )
            },
        )?;
        let third = segment::wait_owner(lab, address)?;
        ensure!(
            third != second && third != owner,
            "{third} owns the address, but its node or speaker was stopped"
        );
        segment::wait_neighbor_entry(lab, address, &third)
    });
}

fn serve_prefer_dual_stack(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[service("either", json!({"ipFamilyPolicy": "PreferDualStack"}))])?;
    services::wait_addresses(lab, "either", &[lab.families().first(SECOND_ADDRESS)])
}

fn wait_page(lab: &Lab, address: IpAddr) -> Result<()> {
    wait::until(&format!("the client gets the page of {address}"), pools::STATE_MAX, || {
        let page = lab.http_get(CLIENT, services::http(address), "/")?;
        ensure!(page.status == 200, "the client gets {page:?}");
        Ok(Some(()))
    })
}

/// Checks that no host or pod has an address of the other family except `only`, and that no object
/// of the cluster contains an address that begins with one of `ranges`. `family` is the flag of
/// `ip` for the other family.
fn check_no_other_family(lab: &Lab, (family, only): (&str, &str), ranges: &[&str]) -> Result<()> {
    let prefix = lab.state().name.prefix();
    for host in netns::list(&prefix).iter().filter_map(|namespace| namespace.strip_prefix(&prefix))
    {
        let shown = lab.exec(host, &["ip", family, "-oneline", "address", "show"])?;
        let addresses: Vec<_> =
            shown.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        ensure!(addresses.iter().all(|address| *address == only), "{host} has {addresses:?}");
    }
    let objects = lab.kubectl(&[
        "get",
        "nodes,pods,services,endpointslices,speakerstatuses",
        "-A",
        "-o",
        "json",
    ])?;
    let found = objects
        .lines()
        .find(|line| ranges.iter().any(|range| line.contains(&format!("\"{range}"))));
    ensure!(found.is_none(), "an object contains {}", found.unwrap_or_default());
    Ok(())
}

/// Checks that no component of FerroLB has logged a warning.
fn check_no_warnings(lab: &Lab) -> Result<()> {
    let components = lab
        .nodes()
        .into_iter()
        .map(|node| format!("speaker-{node}"))
        .chain(["controller".to_owned()]);
    for component in components {
        let log = lab.logs(&component);
        let warnings: Vec<_> = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
            .collect();
        ensure!(warnings.is_empty() && !log.is_empty(), "{component} logged {warnings:#?}");
    }
    Ok(())
}

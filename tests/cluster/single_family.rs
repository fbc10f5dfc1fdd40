//! IPv4-only and IPv6-only clusters, from the installation to the failure of an owner: FerroLB
//! needs nothing of the other family.

use crate::node_failure::{PROBE_LENGTH, probed, serve_elsewhere, within_target};
use crate::scenario::{run_scenario, step};
use crate::services::{self, service, wait_announced};
use crate::under_load::without_loss;
use crate::{pools, segment};
use anyhow::{Result, ensure};
use ferrolb_lab::topology::{CLIENT, Families};
use ferrolb_lab::{Lab, Options, Signal, netns, wait};
use serde_json::json;
use std::net::IpAddr;

/// Address of the second Service, by family.
const EITHER: [&str; 2] = ["172.30.0.201", "fd30::201"];

#[test]
fn a_cluster_of_ipv4_alone_is_served_and_survives_its_owners() {
    let ranges = ["fd30:", "fd44:", "fd96:", "fe80:"];
    of_one_family(Families::V4, "v4only", ("-6", ""), &ranges);
}

#[test]
fn a_cluster_of_ipv6_alone_is_served_and_survives_its_owners() {
    let ranges = ["172.30.", "10.244.", "10.96."];
    of_one_family(Families::V6, "v6only", ("-4", "127.0.0.1/8"), &ranges);
}

/// Runs the scenario. `other` is the flag of `ip` for the other family, and the only address of it
/// that a host may have. `ranges` are the prefixes of its addresses.
fn of_one_family(families: Families, name: &str, other: (&str, &str), ranges: &[&str]) {
    run_scenario(&Options { families, ..Options::named(name) }, |lab| {
        step("FerroLB starts", || lab.start_ferrolb())?;
        let (address, owner) =
            step("a Service is served from a pod that is not on its owner", || {
                serve_elsewhere(lab)
            })?;
        step("its condition says so", || {
            wait_announced(lab, "web", "Announced", &format!("{address} from {owner} (eth0)"))
                .map(drop)
        })?;
        step("one that would like both families gets an address of the one there is", || {
            either(lab)
        })?;
        step("the pages of both are served", || {
            page(lab, address)?;
            page(lab, lab.families().first(EITHER).parse()?)
        })?;
        step("nothing has an address of the other family, and nobody warns of that", || {
            no_other(lab, other, ranges)?;
            no_warnings(lab)
        })?;
        step("the client's kernel knows it at its owner", || {
            segment::wait_neighbor_entry(lab, address, &owner)
        })?;
        step("the owner loses power", || {
            let off = || lab.power_off(&owner);
            within_target(&probed(
                lab,
                address,
                &format!("{families}: owner powered off"),
                PROBE_LENGTH,
                off,
            )?)
        })?;
        let second = segment::wait_owner(lab, address)?;
        ensure!(second != owner, "{owner} is powered off and still owns the address");
        segment::wait_neighbor_entry(lab, address, &second)?;
        step(
            "the next owner's speaker is told to stop, which costs nothing but what is under way",
            || {
                let stop = || lab.stop(&format!("speaker-{second}"), Signal::TERM);
                without_loss(
                    lab,
                    address,
                    (&format!("{families}: speaker of the owner stopped"), 1),
                    stop,
                )
            },
        )?;
        let third = segment::wait_owner(lab, address)?;
        ensure!(third != second && third != owner, "{third} owns the address, but was stopped");
        segment::wait_neighbor_entry(lab, address, &third)
    });
}

fn either(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[service("either", json!({"ipFamilyPolicy": "PreferDualStack"}))])?;
    services::wait_addresses(lab, "either", &[lab.families().first(EITHER)])
}

fn page(lab: &Lab, address: IpAddr) -> Result<()> {
    wait::until(&format!("the page of {address}"), pools::STATE_MAX, || {
        let page = lab.http_get(CLIENT, services::http(address), "/")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(Some(()))
    })
}

/// Checks that no host or pod has an address of the other family except `only`, and that no object
/// of the cluster names one.
fn no_other(lab: &Lab, (family, only): (&str, &str), ranges: &[&str]) -> Result<()> {
    let prefix = lab.state().name.prefix();
    for host in netns::list(&prefix).iter().filter_map(|namespace| namespace.strip_prefix(&prefix))
    {
        let shown = lab.exec(host, &["ip", family, "-oneline", "address", "show"])?;
        let has: Vec<_> = shown.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        ensure!(has.iter().all(|address| *address == only), "{host} has {has:?}");
    }
    let objects = lab.kubectl(&[
        "get",
        "nodes,pods,services,endpointslices,speakerstatuses",
        "-A",
        "-o",
        "json",
    ])?;
    let named = objects
        .lines()
        .find(|line| ranges.iter().any(|range| line.contains(&format!("\"{range}"))));
    ensure!(named.is_none(), "an object contains {}", named.unwrap_or_default());
    Ok(())
}

/// Checks that no component of FerroLB has logged a warning.
fn no_warnings(lab: &Lab) -> Result<()> {
    let programs = lab
        .nodes()
        .into_iter()
        .map(|node| format!("speaker-{node}"))
        .chain(["controller".to_owned()]);
    for program in programs {
        let log = lab.logs(&program);
        let warned: Vec<_> = log
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
            .collect();
        ensure!(warned.is_empty() && !log.is_empty(), "{program} logged {warned:#?}");
    }
    Ok(())
}

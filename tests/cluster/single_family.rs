//! A cluster of IPv4 alone and one of IPv6 alone, from the installation to the death of an owner: nothing of the other family is needed
//! anywhere, and nothing is missed.

use crate::node_death::{PROBE_LENGTH, probed, serve_elsewhere, within_budget};
use crate::services::{self, service, wait_announced};
use crate::stage::{play, step};
use crate::under_load::unharmed;
use crate::{client_wire, pools};
use anyhow::{Result, ensure};
use ferrolb_tests::topology::{CLIENT, Families};
use ferrolb_tests::{Lab, Options, Signal, netns, wait};
use serde_json::json;
use std::net::IpAddr;

/// What the second Service gets.
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

/// The story; `other` is how `ip` calls the other family, and the address of it that a host may have; `ranges` are how its addresses begin.
fn of_one_family(families: Families, name: &str, other: (&str, &str), ranges: &[&str]) {
    play(&Options { families, ..Options::named(name) }, |lab| {
        step("FerroLB starts", || lab.start_ferrolb())?;
        let (address, owner) =
            step("a Service is served from a pod that is not on its owner", || serve_elsewhere(lab))?;
        step("its condition says so", || {
            wait_announced(lab, "web", "Announced", &format!("{address} from {owner} (eth0)")).map(drop)
        })?;
        step("one that would like both families gets an address of the one there is", || either(lab))?;
        step("the pages of both are served", || {
            page(lab, address)?;
            page(lab, lab.families().first(EITHER).parse()?)
        })?;
        step("nothing has an address of the other family, and nobody warns of that", || {
            no_other(lab, other, ranges)?;
            quiet(lab)
        })?;
        step("the client's kernel knows it at its owner", || client_wire::wait_known(lab, address, &owner))?;
        step("the owner loses power", || {
            let off = || lab.power_off(&owner);
            within_budget(&probed(lab, address, &format!("{families}: owner powered off"), PROBE_LENGTH, off)?)
        })?;
        let second = client_wire::wait_owner(lab, address)?;
        ensure!(second != owner, "{owner} is off and answers");
        client_wire::wait_known(lab, address, &second)?;
        step("the next owner's speaker is told to stop, which costs nothing but what is under way", || {
            let stop = || lab.stop(&format!("speaker-{second}"), Signal::TERM);
            unharmed(lab, address, (&format!("{families}: speaker of the owner stopped"), 1), stop)
        })?;
        let third = client_wire::wait_owner(lab, address)?;
        ensure!(third != second && third != owner, "{third} answers, and is gone");
        client_wire::wait_known(lab, address, &third)
    });
}

fn either(lab: &Lab) -> Result<()> {
    lab.apply_objects(&[service("either", json!({"ipFamilyPolicy": "PreferDualStack"}))])?;
    services::wait_addresses(lab, "either", &[lab.families().first(EITHER)])
}

fn page(lab: &Lab, address: IpAddr) -> Result<()> {
    wait::until(&format!("the page of {address}"), pools::BRINGING_MAX, || {
        let page = lab.http_get(CLIENT, services::http(address), "/")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(Some(()))
    })
}

/// No host or pod has an address of the other family but the one it may have, and no object of the cluster names one.
fn no_other(lab: &Lab, (family, only): (&str, &str), ranges: &[&str]) -> Result<()> {
    let prefix = lab.state().name.prefix();
    for host in netns::list(&prefix).iter().filter_map(|namespace| namespace.strip_prefix(&prefix)) {
        let shown = lab.exec(host, &["ip", family, "-oneline", "address", "show"])?;
        let has: Vec<_> = shown.lines().filter_map(|line| line.split_whitespace().nth(3)).collect();
        ensure!(has.iter().all(|address| *address == only), "{host} has {has:?}");
    }
    let objects = lab.kubectl(&["get", "nodes,pods,services,endpointslices,speakerstatuses", "-A", "-o", "json"])?;
    let named = objects.lines().find(|line| ranges.iter().any(|range| line.contains(&format!("\"{range}"))));
    ensure!(named.is_none(), "the cluster knows of {}", named.unwrap_or_default());
    Ok(())
}

/// None of FerroLB's programs has warned of anything.
fn quiet(lab: &Lab) -> Result<()> {
    let programs = lab.nodes().into_iter().map(|node| format!("speaker-{node}")).chain(["controller".to_owned()]);
    for program in programs {
        let log = lab.logs(&program);
        let warned: Vec<_> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
        ensure!(warned.is_empty() && !log.is_empty(), "{program} says {warned:#?}");
    }
    Ok(())
}

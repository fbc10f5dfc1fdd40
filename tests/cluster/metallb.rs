//! MetalLB runs beside FerroLB, and both take the Services without a class. MetalLB's controller is played: it writes what the real one writes, under
//! the real one's name, and never gives up.

use crate::client_wire;
use crate::metrics::metric;
use crate::pools;
use crate::services::{self, ADDRESS_ASSIGNED, ANNOUNCED, service};
use crate::stage::{measured, one_node, play_alone, step};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::Kind;
use ferrolb_tests::setup::repository;
use ferrolb_tests::topology::CONTROL_PLANE;
use ferrolb_tests::{Lab, wait};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// What MetalLB's controller is called in `metadata.managedFields`.
const MANAGER: &str = "controller";
/// Its mark.
const MARK: &str = "metallb.io/ip-allocated-from-pool";
/// The last part of its addresses, which FerroLB's pool has, too.
const POOL: std::ops::RangeInclusive<u8> = 205..=209;
/// How often it looks at all Services.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long both may take to come to an end, and how long nothing is written after that.
const SETTLING: Duration = Duration::from_secs(4);
const QUIET: Duration = Duration::from_secs(3);
/// Services that both would serve; the last one asks both for the same address.
const BOTH: [&str; 4] = ["one", "two", "three", "same"];
/// For each of them we give, see that it is taken, and say so; and two writes for whatever else changes.
const WRITES_MAX: f64 = 3.0 * 4.0 + 2.0;

#[test]
fn a_metallb_that_runs_beside_keeps_what_it_takes_and_nobody_fights() {
    // Alone, as writes are counted against the clock.
    play_alone(&one_node("metallb"), |lab| {
        lab.start_ferrolb()?;
        services::furnish(lab, "node1")?;
        step("both see Services without a class: MetalLB has them, after a few writes", || contend(lab))?;
        step("that is said on each, once as an event, and by the pool", || {
            BOTH.iter().try_for_each(|name| told(lab, name))
        })?;
        step("their addresses are announced by nobody of ours, and given to nobody else", || {
            for name in BOTH {
                client_wire::wait_silent(lab, services::address(lab, name)?)?;
            }
            let mut asks = service("asks", json!({"loadBalancerClass": "ferrolb.io/ferrolb"}));
            let wanted = services::address(lab, "same")?.to_string();
            asks["metadata"]["annotations"] = json!({"ferrolb.io/loadBalancerIPs": wanted});
            lab.apply_objects(&[asks])?;
            services::wait_refused(lab, "asks", "RequestedAddressInUse")
        })?;
        step("a Service of our class is served all the while", || {
            lab.apply_objects(&[service("ours", json!({"loadBalancerClass": "ferrolb.io/ferrolb"}))])?;
            let given = services::address(lab, "ours")?;
            ensure!(!POOL.contains(&given.octets()[3]), "it got {given}");
            ensure!(client_wire::wait_owner(lab, given)? == "node1", "the one node answers");
            Ok(())
        })?;
        step(
            "MetalLB is gone and its mark is taken off as the page says: all is served, at the addresses that it had",
            || go_over(lab),
        )
    });
}

fn contend(lab: &Lab) -> Result<()> {
    let before = writes(lab)?;
    let mut objects = BOTH.map(|name| service(name, json!({})));
    objects[3]["metadata"]["annotations"] = json!({"metallb.io/loadBalancerIPs": "172.30.0.207"});
    lab.apply_objects(&objects)?;
    let theirs = insist(lab, SETTLING)?;
    let ours = writes(lab)? - before;
    measured(&format!("MetalLB beside: of {} Services it wrote {theirs} times, we {ours} times", BOTH.len()));
    ensure!(theirs >= BOTH.len() && theirs <= 2 * BOTH.len() && ours <= WRITES_MAX, "{theirs} and {ours} writes");
    let (theirs, ours) = (insist(lab, QUIET)?, writes(lab)? - before - ours);
    ensure!(theirs == 0 && ours == 0.0, "it goes on: {theirs} and {ours} writes in {QUIET:?}");
    for name in BOTH {
        let address = services::address(lab, name)?;
        ensure!(POOL.contains(&address.octets()[3]), "{name} has {address}, which is not MetalLB's");
    }
    Ok(())
}

fn told(lab: &Lab, name: &str) -> Result<()> {
    services::wait_for(lab, name, "ServedByMetalLB", |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let told =
            condition.status == "False" && condition.reason == "ServedByMetalLB" && condition.message.contains(MARK);
        let ours = service.annotations().keys().any(|key| key.starts_with("ferrolb.io/ip-allocated"));
        (told && !ours && services::condition(service, ANNOUNCED).is_none()).then_some(())
    })?;
    let given = format!("given to Service default/{name} by another load balancer");
    pools::wait_reason(lab, Kind::IPAddressPool, "lan", "Valid", &given)?;
    let events = services::events(lab, name)?;
    let count = events.iter().filter(|event| event.reason.as_deref() == Some("ServedByMetalLB")).count();
    ensure!(count == 1, "{count} of {events:#?}");
    Ok(())
}

/// Takes the mark off by the command of docs/install.md.
fn go_over(lab: &Lab) -> Result<()> {
    let had: Vec<Ipv4Addr> = BOTH.iter().map(|name| services::address(lab, name)).collect::<Result<_>>()?;
    let page = fs::read_to_string(repository().join("docs/install.md"))?;
    let command = page.lines().find_map(|line| line.trim().strip_prefix("kubectl annotate ")).context("the command")?;
    lab.kubectl(&std::iter::once("annotate").chain(command.split_whitespace()).collect::<Vec<_>>())?;
    for (name, address) in BOTH.iter().zip(had) {
        services::wait_announced(lab, name, "Announced", &address.to_string())?;
        ensure!(services::address(lab, name)? == address, "{name} had {address}");
        ensure!(client_wire::wait_owner(lab, address)? == "node1", "the one node answers");
    }
    Ok(())
}

fn writes(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")
}

/// MetalLB's controller for so long; how often it wrote.
fn insist(lab: &Lab, length: Duration) -> Result<usize> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut written) = (wait::now(), 0);
        while start.elapsed() < length {
            let all = services.list(&ListParams::default()).await?.items;
            let mut used: BTreeSet<IpAddr> = all.iter().filter(|s| is_its(s)).flat_map(services::addresses).collect();
            for service in all.into_iter().filter(is_its) {
                let Some(service) = converged(service, &mut used) else { continue };
                let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                match services.replace_status(&service.name_any(), &params, &service).await {
                    Ok(_) => written += 1,
                    // Somebody was faster: it looks again.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error.into()),
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(written)
    })
}

fn is_its(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none())
}

/// What MetalLB makes of a Service: an address of its pool stays, also one that it did not give; any other is replaced. None: it is so already.
fn converged(mut service: Service, used: &mut BTreeSet<IpAddr>) -> Option<Service> {
    let its = |last: u8| IpAddr::from([172, 30, 0, last]);
    let has = services::addresses(&service).into_iter().find(|address| POOL.map(its).any(|one| one == *address));
    if has.is_some() && service.annotations().contains_key(MARK) {
        return None;
    }
    let asks = service.annotations().get("metallb.io/loadBalancerIPs").and_then(|text| text.parse().ok());
    let address = has.or(asks).or_else(|| POOL.map(its).find(|address| !used.contains(address)))?;
    used.insert(address);
    service.annotations_mut().insert(MARK.to_owned(), "theirs".to_owned());
    let ingress = LoadBalancerIngress { ip: Some(address.to_string()), ..LoadBalancerIngress::default() };
    let status = service.status.get_or_insert_default();
    status.load_balancer = Some(LoadBalancerStatus { ingress: Some(vec![ingress]) });
    Some(service)
}

//! MetalLB side by side with FerroLB: both serve the Services without a class. The test plays
//! MetalLB's controller: it writes what the real one writes, under the same name, and never gives
//! up.

use crate::metrics::metric;
use crate::pools;
use crate::scenario::{one_node, print_measured, run_scenario_alone, step};
use crate::segment;
use crate::services::{self, ADDRESS_ASSIGNED, ANNOUNCED, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::setup::repository;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::CustomResourceKind;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// MetalLB's controller in `metadata.managedFields`.
const MANAGER: &str = "controller";
/// Annotation that MetalLB sets on a Service with an address.
const ASSIGNED_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";
/// Last byte of MetalLB's addresses, which FerroLB's pool contains too.
const POOL: std::ops::RangeInclusive<u8> = 205..=209;
/// Interval at which the played controller reads all Services.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum time until both stop writing, and the time after that in which nothing may be written.
const SETTLING: Duration = Duration::from_secs(4);
const QUIET: Duration = Duration::from_secs(3);
/// Services that both would serve. The last one requests the same address from both.
const BOTH: [&str; 4] = ["one", "two", "three", "same"];
/// Maximum number of FerroLB's writes. For each Service: the assignment, the attempt that finds
/// MetalLB's write, and the condition. Two more for everything else that changes.
const WRITES_MAX: f64 = 3.0 * 4.0 + 2.0;

#[test]
fn side_by_side_with_metallb_each_service_keeps_its_load_balancer() {
    // No other test runs meanwhile, because writes are counted over time.
    run_scenario_alone(&one_node("metallb"), |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node1")?;
        step("both see Services without a class: MetalLB has them, after a few writes", || {
            contend(lab)
        })?;
        step("that is said on each, once as an event, and by the pool", || {
            BOTH.iter().try_for_each(|name| reported(lab, name))
        })?;
        step("their addresses are announced by nobody of ours, and given to nobody else", || {
            for name in BOTH {
                segment::wait_unannounced(lab, services::address(lab, name)?)?;
            }
            let mut asks = service("asks", json!({"loadBalancerClass": "ferrolb.io/ferrolb"}));
            let wanted = services::address(lab, "same")?.to_string();
            asks["metadata"]["annotations"] = json!({"ferrolb.io/loadBalancerIPs": wanted});
            lab.apply_objects(&[asks])?;
            services::wait_refused(lab, "asks", "RequestedAddressInUse")
        })?;
        step("a Service of our class is served all the while", || {
            lab.apply_objects(&[service(
                "ours",
                json!({"loadBalancerClass": "ferrolb.io/ferrolb"}),
            )])?;
            let given = services::address(lab, "ours")?;
            ensure!(!POOL.contains(&given.octets()[3]), "the Service has {given}");
            ensure!(segment::wait_owner(lab, given)? == "node1", "node1 owns the address");
            Ok(())
        })?;
        step(
            "MetalLB is gone and its mark is taken off as the page says: all is served, at the addresses that it had",
            || migrate(lab),
        )
    });
}

fn contend(lab: &Lab) -> Result<()> {
    let before = writes(lab)?;
    let mut objects = BOTH.map(|name| service(name, json!({})));
    objects[3]["metadata"]["annotations"] = json!({"metallb.io/loadBalancerIPs": "172.30.0.207"});
    lab.apply_objects(&objects)?;
    let theirs = run_controller(lab, SETTLING)?;
    let ours = writes(lab)? - before;
    print_measured(&format!(
        "MetalLB beside: of {} Services it wrote {theirs} times, we {ours} times",
        BOTH.len()
    ));
    ensure!(
        theirs >= BOTH.len() && theirs <= 2 * BOTH.len() && ours <= WRITES_MAX,
        "{theirs} writes of MetalLB and {ours} of FerroLB"
    );
    let (theirs, ours) = (run_controller(lab, QUIET)?, writes(lab)? - before - ours);
    ensure!(
        theirs == 0 && ours == 0.0,
        "the writes continue: {theirs} of MetalLB and {ours} of FerroLB in {QUIET:?}"
    );
    for name in BOTH {
        let address = services::address(lab, name)?;
        ensure!(
            POOL.contains(&address.octets()[3]),
            "{name} has {address}, which is not from MetalLB's pool"
        );
    }
    Ok(())
}

fn reported(lab: &Lab, name: &str) -> Result<()> {
    services::wait_for(lab, name, "ServedByMetalLB", |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let told = condition.status == "False"
            && condition.reason == "ServedByMetalLB"
            && condition.message.contains(ASSIGNED_ANNOTATION);
        let ours =
            service.annotations().keys().any(|key| key.starts_with("ferrolb.io/ip-allocated"));
        (told && !ours && services::condition(service, ANNOUNCED).is_none()).then_some(())
    })?;
    let given = format!("assigned to Service default/{name} by another load balancer");
    pools::wait_reason(lab, CustomResourceKind::IPAddressPool, "lan", "Valid", &given)?;
    let events = services::events(lab, name)?;
    let count =
        events.iter().filter(|event| event.reason.as_deref() == Some("ServedByMetalLB")).count();
    ensure!(count == 1, "{count} of {events:#?}");
    Ok(())
}

/// Removes MetalLB's annotation with the command from docs/install.md.
fn migrate(lab: &Lab) -> Result<()> {
    let had: Vec<Ipv4Addr> =
        BOTH.iter().map(|name| services::address(lab, name)).collect::<Result<_>>()?;
    let page = fs::read_to_string(repository().join("docs/install.md"))?;
    let command = page
        .lines()
        .find_map(|line| line.trim().strip_prefix("kubectl annotate "))
        .context("the command")?;
    lab.kubectl(
        &std::iter::once("annotate").chain(command.split_whitespace()).collect::<Vec<_>>(),
    )?;
    for (name, address) in BOTH.iter().zip(had) {
        services::wait_announced(lab, name, "Announced", &address.to_string())?;
        ensure!(services::address(lab, name)? == address, "{name} had {address}");
        ensure!(segment::wait_owner(lab, address)? == "node1", "node1 owns the address");
    }
    Ok(())
}

fn writes(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")
}

/// Plays MetalLB's controller for `length`. Returns the number of its writes.
fn run_controller(lab: &Lab, length: Duration) -> Result<usize> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut written) = (wait::now(), 0);
        while start.elapsed() < length {
            let all = services.list(&ListParams::default()).await?.items;
            let mut used: BTreeSet<IpAddr> =
                all.iter().filter(|s| is_metallbs(s)).flat_map(services::addresses).collect();
            for service in all.into_iter().filter(is_metallbs) {
                let Some(service) = converged(service, &mut used) else { continue };
                let params =
                    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                match services.replace_status(&service.name_any(), &params, &service).await {
                    Ok(_) => written += 1,
                    // Another writer was faster: the next pass reads the Service again.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error.into()),
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(written)
    })
}

fn is_metallbs(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    })
}

/// Returns the Service as MetalLB changes it: an address of its pool stays, also one that another
/// controller assigned, and any other is replaced. None: nothing to change.
fn converged(mut service: Service, used: &mut BTreeSet<IpAddr>) -> Option<Service> {
    let its = |last: u8| IpAddr::from([172, 30, 0, last]);
    let has = services::addresses(&service)
        .into_iter()
        .find(|address| POOL.map(its).any(|one| one == *address));
    if has.is_some() && service.annotations().contains_key(ASSIGNED_ANNOTATION) {
        return None;
    }
    let asks =
        service.annotations().get("metallb.io/loadBalancerIPs").and_then(|text| text.parse().ok());
    let address = has.or(asks).or_else(|| POOL.map(its).find(|address| !used.contains(address)))?;
    used.insert(address);
    service.annotations_mut().insert(ASSIGNED_ANNOTATION.to_owned(), "theirs".to_owned());
    let ingress =
        LoadBalancerIngress { ip: Some(address.to_string()), ..LoadBalancerIngress::default() };
    let status = service.status.get_or_insert_default();
    status.load_balancer = Some(LoadBalancerStatus { ingress: Some(vec![ingress]) });
    Some(service)
}

//! MetalLB side by side with FerroLB: both serve the Services without a class. The test acts as
//! MetalLB's controller: it writes the same fields with the same field manager, and repeats a write
//! until it succeeds.

use crate::metrics::metric;
use crate::pools;
use crate::scenario::{one_node, print_measured, run_scenario_alone, step};
use crate::segment;
use crate::services::{self, ADDRESS_ASSIGNED, ANNOUNCED, service};
use anyhow::{Result, ensure};
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::CustomResourceKind;
use ferrolb_tests::read_page;
use ferrolb_tests::run::Runner;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Field manager of MetalLB's controller in `metadata.managedFields`.
const METALLB_MANAGER: &str = "controller";
/// Annotation that MetalLB sets on a Service with an address.
const ASSIGNED_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";
/// Last bytes of the addresses in MetalLB's pool, which FerroLB's pool contains too.
const METALLB_POOL: std::ops::RangeInclusive<u8> = 205..=209;
/// Interval at which MetalLB's simulated controller reads all Services.
const READ_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum time until FerroLB and MetalLB write nothing more, and the time after that in which
/// neither of them may write.
const SETTLING: Duration = Duration::from_secs(4);
const QUIET: Duration = Duration::from_secs(3);
/// Names of Services without a class, for which both FerroLB and MetalLB are responsible. The last
/// Service requests an address that both pools contain.
const CLASSLESS_SERVICES: [&str; 4] = ["one", "two", "three", "same"];
/// Maximum number of FerroLB's writes. For each Service: the assignment, the attempt that finds
/// MetalLB's write, and the condition. Two more for everything else that changes.
const WRITES_MAX: f64 = 3.0 * 4.0 + 2.0;

#[test]
fn side_by_side_with_metallb_each_service_keeps_its_load_balancer() {
    // No other test runs meanwhile, because writes are counted over time.
    run_scenario_alone(&one_node("metallb"), |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node1")?;
        step(
            "both controllers write Services without a class, and MetalLB keeps them after a few writes",
            || apply_classless_services(lab),
        )?;
        step(
            "FerroLB reports each Service of MetalLB by condition, pool status and one Event",
            || CLASSLESS_SERVICES.iter().try_for_each(|name| check_reported(lab, name)),
        )?;
        step("FerroLB neither announces nor assigns the addresses of MetalLB's Services", || {
            for name in CLASSLESS_SERVICES {
                segment::wait_unannounced(lab, services::address(lab, name)?)?;
            }
            let mut object =
                service("requesting", json!({"loadBalancerClass": "ferrolb.io/ferrolb"}));
            let requested = services::address(lab, "same")?.to_string();
            object["metadata"]["annotations"] = json!({"ferrolb.io/loadBalancerIPs": requested});
            lab.apply_objects(&[object])?;
            services::wait_refused(lab, "requesting", "RequestedAddressInUse")
        })?;
        step("a Service of FerroLB's class is served", || {
            lab.apply_objects(&[service(
                "own-class",
                json!({"loadBalancerClass": "ferrolb.io/ferrolb"}),
            )])?;
            let address = services::address(lab, "own-class")?;
            ensure!(!METALLB_POOL.contains(&address.octets()[3]), "the Service has {address}");
            ensure!(segment::wait_owner(lab, address)? == "node1", "another node owns the address");
            Ok(())
        })?;
        step(
            "MetalLB is stopped and its annotation removed: FerroLB serves the same addresses",
            || migrate(lab),
        )
    });
}

fn apply_classless_services(lab: &Lab) -> Result<()> {
    let before = writes(lab)?;
    let mut objects = CLASSLESS_SERVICES.map(|name| service(name, json!({})));
    objects[3]["metadata"]["annotations"] = json!({"metallb.io/loadBalancerIPs": "172.30.0.207"});
    lab.apply_objects(&objects)?;
    let metallb_writes = run_controller(lab, SETTLING)?;
    let ferrolb_writes = writes(lab)? - before;
    print_measured(&format!(
        "side by side with MetalLB: {} Services, {metallb_writes} writes of MetalLB, {ferrolb_writes} of FerroLB",
        CLASSLESS_SERVICES.len()
    ));
    ensure!(
        metallb_writes >= CLASSLESS_SERVICES.len()
            && metallb_writes <= 2 * CLASSLESS_SERVICES.len()
            && ferrolb_writes <= WRITES_MAX,
        "{metallb_writes} writes of MetalLB and {ferrolb_writes} of FerroLB"
    );
    let (metallb_writes, ferrolb_writes) =
        (run_controller(lab, QUIET)?, writes(lab)? - before - ferrolb_writes);
    ensure!(
        metallb_writes == 0 && ferrolb_writes == 0.0,
        "the writes continue: {metallb_writes} of MetalLB and {ferrolb_writes} of FerroLB in {QUIET:?}"
    );
    for name in CLASSLESS_SERVICES {
        let address = services::address(lab, name)?;
        ensure!(
            METALLB_POOL.contains(&address.octets()[3]),
            "{name} has {address}, which is not from MetalLB's pool"
        );
    }
    Ok(())
}

fn check_reported(lab: &Lab, name: &str) -> Result<()> {
    services::wait_for(lab, name, "ServedByMetalLB", |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let matches = condition.status == "False"
            && condition.reason == "ServedByMetalLB"
            && condition.message.contains(ASSIGNED_ANNOTATION);
        let annotated =
            service.annotations().keys().any(|key| key.starts_with("ferrolb.io/ip-allocated"));
        (matches && !annotated && services::condition(service, ANNOUNCED).is_none()).then_some(())
    })?;
    let message = format!("assigned to Service default/{name} by another load balancer");
    pools::wait_reason(lab, CustomResourceKind::IPAddressPool, "lan", "Valid", &message)?;
    let events = services::events(lab, name)?;
    let count =
        events.iter().filter(|event| event.reason.as_deref() == Some("ServedByMetalLB")).count();
    ensure!(count == 1, "{count} of these Events have the reason ServedByMetalLB: {events:#?}");
    Ok(())
}

/// Removes MetalLB's annotation with the command from docs/migrate-from-metallb.md, and checks that
/// FerroLB serves all Services with unchanged addresses.
fn migrate(lab: &Lab) -> Result<()> {
    let addresses: Vec<Ipv4Addr> = CLASSLESS_SERVICES
        .iter()
        .map(|name| services::address(lab, name))
        .collect::<Result<_>>()?;
    let page = read_page("docs/migrate-from-metallb.md")?;
    let command = page.commands_with("kubectl annotate services")?;
    Runner::in_lab(lab)?.block(&page, command)?;
    for (name, address) in CLASSLESS_SERVICES.iter().zip(addresses) {
        services::wait_announced(lab, name, "Announced", &address.to_string())?;
        ensure!(services::address(lab, name)? == address, "{name} lost its address {address}");
        ensure!(segment::wait_owner(lab, address)? == "node1", "another node owns the address");
    }
    Ok(())
}

fn writes(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")
}

/// Acts as MetalLB's controller for `length`. Returns the number of successful writes.
fn run_controller(lab: &Lab, length: Duration) -> Result<usize> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut written) = (wait::now(), 0);
        while start.elapsed() < length {
            let all = services.list(&ListParams::default()).await?.items;
            let mut used: BTreeSet<IpAddr> =
                all.iter().filter(|s| is_classless(s)).flat_map(services::addresses).collect();
            for service in all.into_iter().filter(is_classless) {
                let Some(service) = assign_as_metallb(service, &mut used) else { continue };
                let params = PostParams {
                    field_manager: Some(METALLB_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                match services.replace_status(&service.name_any(), &params, &service).await {
                    Ok(_) => written += 1,
                    // Another writer was faster: the next pass reads the Service again.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error.into()),
                }
            }
            tokio::time::sleep(READ_INTERVAL).await;
        }
        Ok(written)
    })
}

fn is_classless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    })
}

/// Returns the Service as MetalLB changes it, or `None` if MetalLB changes nothing. MetalLB keeps
/// an address from its pool, even if another controller assigned it, and replaces any other
/// address.
fn assign_as_metallb(mut service: Service, used: &mut BTreeSet<IpAddr>) -> Option<Service> {
    let metallb_address = |last: u8| IpAddr::from([172, 30, 0, last]);
    let assigned = services::addresses(&service)
        .into_iter()
        .find(|address| METALLB_POOL.map(metallb_address).any(|one| one == *address));
    if assigned.is_some() && service.annotations().contains_key(ASSIGNED_ANNOTATION) {
        return None;
    }
    let requested =
        service.annotations().get("metallb.io/loadBalancerIPs").and_then(|text| text.parse().ok());
    let address = assigned
        .or(requested)
        .or_else(|| METALLB_POOL.map(metallb_address).find(|address| !used.contains(address)))?;
    used.insert(address);
    service.annotations_mut().insert(ASSIGNED_ANNOTATION.to_owned(), "metallb-pool".to_owned());
    let ingress =
        LoadBalancerIngress { ip: Some(address.to_string()), ..LoadBalancerIngress::default() };
    let status = service.status.get_or_insert_default();
    status.load_balancer = Some(LoadBalancerStatus { ingress: Some(vec![ingress]) });
    Some(service)
}

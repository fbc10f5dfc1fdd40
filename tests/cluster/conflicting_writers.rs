//! Conflicting writers: another controller writes FerroLB's fields before FerroLB does, repeatedly
//! against FerroLB, and between FerroLB's read and write. FerroLB's Services keep FerroLB's
//! addresses, the write rate stays low, and FerroLB does not write Services of other classes.

use crate::metrics::metric;
use crate::other_field_manager::{self, OTHER_ADDRESS};
use crate::pools::pool;
use crate::relay::Relay;
use crate::scenario::{print_measured, run_scenario, step, without_proxy};
use crate::services::{self, service};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::ferrolb::CONTROLLER;
use ferrolb_lab::topology::CONTROL_PLANE;
use ferrolb_lab::{Lab, Signal};
use ferrolb_proto::api::{GROUP, LOAD_BALANCER_CLASS, pool_annotation};
use k8s_openapi::api::core::v1::Service as Object;
use kube::api::Api;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The first two addresses of the pool.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
/// FerroLB's field manager.
pub(crate) const FIELD_MANAGER: &str = "ferrolb-controller.ferrolb-system";
/// Time for which the other controller repeatedly writes an address that is not from FerroLB's
/// pool.
const CONFLICT_TIME: Duration = Duration::from_secs(15);
/// Allowed number of FerroLB's corrections during [`CONFLICT_TIME`]: at once, after 0.2 s, 0.4 s,
/// 0.8 s ... gives 7. Without backoff there would be hundreds.
const CORRECTIONS: std::ops::RangeInclusive<f64> = 3.0..=12.0;
/// Time for which the other controller changes a Service without pause.
const CHANGE_TIME: Duration = Duration::from_secs(4);
/// Maximum number of FerroLB's attempts to write the changing Service: at once, after 0.2 s, 0.4 s
/// and so on, until an attempt succeeds.
const ATTEMPTS_MAX: f64 = 10.0;
/// Delay of each reply of the API server, so that the other controller always writes between
/// FerroLB's read and its write.
const REPLY_DELAY: Duration = Duration::from_millis(100);

#[test]
fn writes_of_other_controllers_are_corrected_at_a_limited_rate() {
    run_scenario(&without_proxy("writers"), |lab| {
        lab.install_ferrolb()?;
        let _relay = Relay::before_api(lab, REPLY_DELAY)?;
        lab.apply_objects(&[
            pool("lan", &["172.30.0.200-172.30.0.209"]),
            service("other-class", json!({"loadBalancerClass": "example.com/other"})),
            service("web", json!({})),
        ])?;
        step(
            "addresses and pool that another controller wrote first are corrected by one write",
            || {
                with_services(lab, async |services| {
                    other_field_manager::write_addresses(&services, "other-class").await?;
                    other_field_manager::write_addresses(&services, "web").await?;
                    other_field_manager::write_annotation(&services, "web").await
                })?;
                lab.start_controller(&[])?;
                wait_corrected(lab, "web", FIRST_ADDRESS)?;
                ensure!(errors(lab)? < 1.0, "{} writes were refused", errors(lab)?);
                Ok(())
            },
        )?;
        step(
            "another controller writes a foreign address repeatedly: corrections back off",
            || {
                let before = writes(lab)?;
                let conflicting_writes =
                    other_field_manager::write_repeatedly(lab, "web", CONFLICT_TIME)?;
                let corrections = writes(lab)? - before;
                let rate = corrections / CONFLICT_TIME.as_secs_f64();
                print_measured(&format!(
                    "conflicting writer: {conflicting_writes} of its writes, {corrections} corrections in {CONFLICT_TIME:?}, {rate:.2} corrections per second"
                ));
                ensure!(
                    CORRECTIONS.contains(&corrections),
                    "{corrections} corrections of {conflicting_writes} conflicting writes in {CONFLICT_TIME:?}"
                );
                wait_corrected(lab, "web", FIRST_ADDRESS)
            },
        )?;
        step(
            "a Service changes between each read and write: attempts back off, and one succeeds",
            || assign_to_changing_service(lab),
        )?;
        step("FerroLB never writes a Service of another class", || {
            let other = services::get(lab, "other-class")?;
            let managers = managers(&other);
            ensure!(
                !managers.iter().any(|manager| manager == FIELD_MANAGER),
                "the Service has the field managers {managers:?}"
            );
            ensure!(
                services::addresses(&other) == [OTHER_ADDRESS.parse::<IpAddr>()?],
                "the status of the Service is {:?}",
                other.status
            );
            Ok(())
        })
    });
}

/// Checks that a Service gets an address although it changes between each read and write of
/// FerroLB's controller. The controller must read the Service first, because the other controller
/// has set its addresses.
fn assign_to_changing_service(lab: &Lab) -> Result<()> {
    let (attempts, refused) = (writes(lab)?, errors(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    lab.apply_objects(&[service("busy", json!({"loadBalancerClass": LOAD_BALANCER_CLASS}))])?;
    with_services(lab, async |services| {
        other_field_manager::write_addresses(&services, "busy").await
    })?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    let changes = other_field_manager::change_repeatedly(lab, "busy", CHANGE_TIME)?;
    wait_corrected(lab, "busy", SECOND_ADDRESS)?;
    let (attempts, refused) = (writes(lab)? - attempts, errors(lab)? - refused);
    print_measured(&format!(
        "a Service that was changed {changes} times in {CHANGE_TIME:?}: {attempts} attempts to write it, {refused} refused"
    ));
    ensure!(refused >= 1.0, "no write was refused, so no change came between a read and a write");
    ensure!(attempts <= ATTEMPTS_MAX, "{attempts} attempts to write the Service");
    Ok(())
}

/// Waits until a Service has this address, from FerroLB's pool, written by FerroLB.
fn wait_corrected(lab: &Lab, name: &str, address: Ipv4Addr) -> Result<()> {
    let found =
        services::wait_for(lab, name, &format!("{address} from FerroLB's pool"), |service| {
            let pool = service.metadata.annotations.as_ref()?.get(&pool_annotation(GROUP))?;
            (services::addresses(service) == [IpAddr::V4(address)] && pool == "lan")
                .then(|| service.clone())
        })?;
    let managers = managers(&found);
    ensure!(
        managers.iter().any(|manager| manager == FIELD_MANAGER),
        "the Service has the field managers {managers:?}"
    );
    Ok(())
}

/// Returns the field managers of an object, as the API server records them.
fn managers(service: &Object) -> Vec<String> {
    let fields = service.metadata.managed_fields.iter().flatten();
    fields.filter_map(|entry| entry.manager.clone()).collect()
}

fn with_services(
    lab: &Lab,
    work: impl AsyncFnOnce(Api<Object>) -> Result<()> + Send,
) -> Result<()> {
    lab.api(async |client| work(Api::default_namespaced(client)).await)
}

fn writes(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")
}

fn errors(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_write_errors_total")
}

//! Conflicting writers: other controllers write FerroLB's fields before it, against it, and between
//! its read and its write. FerroLB's Services keep its addresses, the write rate stays low, and
//! Services of other classes are not touched.

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
use ferrolb_proto::api::{GROUP, pool_annotation};
use k8s_openapi::api::core::v1::Service as Object;
use kube::api::Api;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The first and the second address of the pool.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);
/// FerroLB's field manager.
pub(crate) const OURS: &str = "ferrolb-controller";
/// Time for which the other writer restores an address that is not from FerroLB's pool.
const CONFLICT_TIME: Duration = Duration::from_secs(15);
/// Number of corrections allowed in that time: at once, after 0.2 s, 0.4 s, 0.8 s ... gives 7.
/// Without backoff there would be hundreds.
const CORRECTIONS: std::ops::RangeInclusive<f64> = 3.0..=12.0;
/// Time for which the other writer changes a Service all the time.
const CHANGE_TIME: Duration = Duration::from_secs(4);
/// Maximum number of write attempts to that Service: at once, after 0.2 s, 0.4 s ... until one
/// succeeds.
const ATTEMPTS_MAX: f64 = 10.0;
/// Delay of each reply of the API server, so that the other writer always comes between the
/// controller's read and its write.
const REPLY_DELAY: Duration = Duration::from_millis(100);

#[test]
fn writes_of_other_controllers_are_corrected_at_a_limited_rate() {
    run_scenario(&without_proxy("quarrel"), |lab| {
        lab.install_ferrolb()?;
        let _relay = Relay::before_api(lab, REPLY_DELAY)?;
        lab.apply_objects(&[
            pool("lan", &["172.30.0.200-172.30.0.209"]),
            service("theirs", json!({"loadBalancerClass": "example.com/other"})),
            service("web", json!({})),
        ])?;
        step(
            "somebody has written addresses and pool before us: they are ours after one write",
            || {
                api(lab, async |services| {
                    other_field_manager::claim_addresses(&services, "theirs").await?;
                    other_field_manager::claim_addresses(&services, "web").await?;
                    other_field_manager::claim_annotation(&services, "web").await
                })?;
                lab.start_controller(&[])?;
                wait_corrected(lab, "web", FIRST)?;
                ensure!(errors(lab)? < 1.0, "{} writes were refused", errors(lab)?);
                Ok(())
            },
        )?;
        step("somebody insists on another address: we answer ever more slowly", || {
            let before = writes(lab)?;
            let claims = other_field_manager::claim_repeatedly(lab, "web", CONFLICT_TIME)?;
            let answers = writes(lab)? - before;
            let rate = answers / CONFLICT_TIME.as_secs_f64();
            print_measured(&format!(
                "quarrel: {claims} claims, {answers} answers in {CONFLICT_TIME:?}, {rate:.2} writes per second"
            ));
            ensure!(
                CORRECTIONS.contains(&answers),
                "{answers} corrections of {claims} claims in {CONFLICT_TIME:?}"
            );
            wait_corrected(lab, "web", FIRST)
        })?;
        step(
            "no version of a Service lasts until we have written: we try ever more slowly, and get there",
            || changed_meanwhile(lab),
        )?;
        step("what is of another class was never written by us", || {
            let theirs = services::get(lab, "theirs")?;
            let owners = managers(&theirs);
            ensure!(!owners.iter().any(|owner| owner == OURS), "its field managers are {owners:?}");
            ensure!(
                services::addresses(&theirs) == [OTHER_ADDRESS.parse::<IpAddr>()?],
                "{:?}",
                theirs.status
            );
            Ok(())
        })
    });
}

/// Assigns an address to a Service that changes between the controller's read and its write. The
/// read is needed, because another writer has set the addresses.
fn changed_meanwhile(lab: &Lab) -> Result<()> {
    let (tries, refused) = (writes(lab)?, errors(lab)?);
    lab.signal(CONTROLLER, Signal::STOP)?;
    lab.apply_objects(&[service("busy", json!({}))])?;
    api(lab, async |services| other_field_manager::claim_addresses(&services, "busy").await)?;
    lab.signal(CONTROLLER, Signal::CONT)?;
    let changes = other_field_manager::change_repeatedly(lab, "busy", CHANGE_TIME)?;
    wait_corrected(lab, "busy", SECOND)?;
    let (tries, refused) = (writes(lab)? - tries, errors(lab)? - refused);
    print_measured(&format!(
        "a Service that was changed {changes} times in {CHANGE_TIME:?}: {tries} tries to write it, {refused} refused"
    ));
    ensure!(refused >= 1.0, "no write was refused, so the test proves nothing");
    ensure!(tries <= ATTEMPTS_MAX, "{tries} attempts");
    Ok(())
}

/// Waits until a Service has this address, from FerroLB's pool, written by FerroLB.
fn wait_corrected(lab: &Lab, name: &str, address: Ipv4Addr) -> Result<()> {
    let found = services::wait_for(lab, name, &format!("{address} from our pool"), |service| {
        let pool = service.metadata.annotations.as_ref()?.get(&pool_annotation(GROUP))?;
        (services::addresses(service) == [IpAddr::V4(address)] && pool == "lan")
            .then(|| service.clone())
    })?;
    let owners = managers(&found);
    ensure!(owners.iter().any(|owner| owner == OURS), "its field managers are {owners:?}");
    Ok(())
}

/// Returns the field managers of an object, as the API server records them.
fn managers(service: &Object) -> Vec<String> {
    let fields = service.metadata.managed_fields.iter().flatten();
    fields.filter_map(|entry| entry.manager.clone()).collect()
}

fn api(lab: &Lab, work: impl AsyncFnOnce(Api<Object>) -> Result<()> + Send) -> Result<()> {
    lab.api(async |client| work(Api::default_namespaced(client)).await)
}

fn writes(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_writes_total")
}

fn errors(lab: &Lab) -> Result<f64> {
    metric(lab, CONTROL_PLANE, "ferrolb_controller_write_errors_total")
}

//! A pool and its advertisement that are deleted and created again, as by `kubectl replace
//! --force`: the Services keep their addresses, and clients notice nothing.

use crate::node_failure::{probe_during, serve_from_other_node};
use crate::pools;
use crate::scenario::{run_scenario, step};
use crate::services;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::api::{CustomResourceKind, GROUP, NAMESPACE, resource};
use kube::api::{Api, DeleteParams, DynamicObject};
use std::net::IpAddr;
use std::time::Duration;

pub(crate) const FAILBACK_NEVER: [&str; 2] = ["--failback-delay", "never"];
/// Flag of the controller, and times for which the pool is missing, which are shorter.
const POOL_GRACE: [&str; 2] = ["--pool-grace", "20s"];
const ABSENCES: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(14)];
/// Time for which the client connects after the pool exists again.
const AFTER: Duration = Duration::from_secs(3);

#[test]
fn clients_do_not_notice_that_a_pool_is_created_again() {
    run_scenario(&Options::named("missingpool"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&POOL_GRACE)?;
        // A move of the address meanwhile would cut connections, whatever becomes of the pool.
        lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &FAILBACK_NEVER))?;
        let (address, _) = step("a Service is served", || serve_from_other_node(lab))?;
        services::wait_announced(lab, "web", "Announced", "")?;
        for absence in ABSENCES {
            step(&format!("the pool is missing for {absence:?}"), || {
                check_absence(lab, address, absence)
            })?;
        }
        Ok(())
    });
}

/// Checks that no connection fails while the pool is missing, and that the Service has its address
/// afterwards.
fn check_absence(lab: &Lab, address: IpAddr, absence: Duration) -> Result<()> {
    let name = format!("pool missing for {absence:?}");
    let report = probe_during(lab, address, &name, absence + AFTER, || {
        delete_pool(lab)?;
        lab.kubectl(&["-n", NAMESPACE, "delete", "l2advertisements.ferrolb.io", "all"])?;
        wait_reason(lab, "PoolMissing")?;
        wait::during(absence, || {
            let service = services::get(lab, "web")?;
            let announced = services::condition(&service, services::ANNOUNCED);
            ensure!(announced.is_some_and(|it| it.status == "True"), "announced: {announced:?}");
            Ok(())
        })?;
        create_pool(lab)?;
        lab.apply_objects(&[pools::advertisement()])?;
        wait_reason(lab, "Assigned")
    })?;
    ensure!(report.lost == 0, "connections were lost: {report:#?}");
    services::wait_addresses(lab, "web", &[&address.to_string()])?;
    services::wait_announced(lab, "web", "Announced", "").map(drop)
}

/// Creates the pool `lan` with the addresses that it had.
pub(crate) fn create_pool(lab: &Lab) -> Result<()> {
    let addresses = lab.families().of(["172.30.0.200-172.30.0.209", "fd30::200-fd30::209"]);
    lab.apply_objects(&[pools::pool("lan", &addresses)])
}

pub(crate) fn delete_pool(lab: &Lab) -> Result<()> {
    lab.api(async |client| {
        let kind = resource(CustomResourceKind::IPAddressPool, GROUP);
        let pools: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &kind);
        pools.delete("lan", &DeleteParams::default()).await?;
        Ok(())
    })
}

pub(crate) fn wait_reason(lab: &Lab, reason: &str) -> Result<()> {
    services::wait_for(lab, "web", &format!("AddressAssigned has the reason {reason}"), |service| {
        let condition = services::condition(service, services::ADDRESS_ASSIGNED)?;
        (condition.reason == reason).then_some(())
    })
}

//! Addresses that survive other clients, missing pools, deleted Services and a new installation.

use crate::controller_outage::LEASE_FLAGS;
use crate::missing_pool::{FAILBACK_NEVER, create_pool, delete_pool, wait_reason};
use crate::node_failure::{probe_during, serve_from_other_node};
use crate::pools::{self, STATE_MAX};
use crate::scenario::{print_measured, run_scenario, step};
use crate::segment;
use crate::services::{self, ADDRESS_ASSIGNED, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::wait::WorkClock;
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::api::{GROUP, NAMESPACE, crds, field_manager};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// `--pool-grace` of the controller and the speakers.
const GRACE: Duration = Duration::from_secs(15);
const GRACE_FLAGS: [&str; 2] = ["--pool-grace", "15s"];
/// Number of times that another client clears the status, and the interval.
const CLEAR_COUNT: u32 = 6;
const CLEAR_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum time of a [`WorkClock`] until a cleared status is restored: three times the target.
const RESTORE_MAX: Duration = Duration::from_millis(300);
/// Maximum time for which no connection succeeds after a cleared status. kube-proxy removes its
/// rules at once, and creates them again in its next synchronization, one second later.
const KUBE_PROXY_GAP_MAX_MS: f64 = 1_500.0;
/// Time for which the client connects after the last event.
const AFTER: Duration = Duration::from_secs(2);
/// Number of Services that are deleted and created again.
const SERVICE_COUNT: usize = 100;
/// Time for which the client connects while they are deleted, and until kube-proxy has removed
/// their rules.
const DELETED_AFTER: Duration = Duration::from_secs(8);
/// Address of another load balancer, in no pool.
const OTHER_ADDRESS: &str = "192.0.2.7";

#[test]
fn addresses_survive_other_clients_and_deletions() {
    run_scenario(&Options::named("stable"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[&LEASE_FLAGS[..], &GRACE_FLAGS].concat())?;
        let flags = [FAILBACK_NEVER, GRACE_FLAGS].concat();
        lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &flags))?;
        let (address, owner) = step("a Service is served", || serve_from_other_node(lab))?;
        services::wait_announced(lab, "web", "Announced", "")?;
        step("a status that another client clears is restored, and its address stays", || {
            clear_repeatedly(lab, address, &owner)
        })?;
        step("another load balancer keeps its Service until it is adopted", || adopt(lab))?;
        step("Services get their addresses back after a pool was missing for too long", || {
            lose_pool(lab)
        })?;
        step("Services that are created again in another order get their addresses", || {
            create_again(lab, address)
        })?;
        step("a new installation changes nothing", || reinstall(lab, address))?;
        step("a controller that does not serve a Service any more takes its fields away", || {
            leave(lab)
        })
    });
}

/// Clears the status of the Service repeatedly while the client connects.
fn clear_repeatedly(lab: &Lab, address: IpAddr, owner: &str) -> Result<()> {
    let length = CLEAR_INTERVAL * CLEAR_COUNT + AFTER;
    let name = format!("status cleared {CLEAR_COUNT} times");
    let mut slowest = Duration::ZERO;
    let report = probe_during(lab, address, &name, length, || {
        for _ in 0..CLEAR_COUNT {
            let start = WorkClock::start();
            services::patch_status(lab, "web", &json!({"status": {"loadBalancer": null}}))?;
            services::wait_addresses(lab, "web", &[&address.to_string()])?;
            slowest = slowest.max(start.within(RESTORE_MAX).context("a status is restored")?);
            let now = segment::owner(lab, address)?;
            ensure!(now == owner, "{now} owns the address instead of {owner}");
            wait::during(CLEAR_INTERVAL.saturating_sub(start.real_elapsed()), || Ok(()))?;
        }
        wait_reason(lab, "StatusContested")
    })?;
    print_measured(&format!("cleared status restored after at most {slowest:?}"));
    ensure!(report.longest_gap_ms < KUBE_PROXY_GAP_MAX_MS, "the gap is too long: {report:#?}");
    services::wait_announced(lab, "web", "Announced", "").map(drop)
}

/// Checks that FerroLB leaves the address of another load balancer as it is, until the Service has
/// the annotation `ferrolb.io/adopt`.
fn adopt(lab: &Lab) -> Result<()> {
    // The Service becomes FerroLB's only after the other load balancer has written its status.
    lab.apply_objects(&[service("other", json!({"loadBalancerClass": "example.com/other"}))])?;
    lab.apply_objects(&[service("other2", json!({"type": "ClusterIP"}))])?;
    lab.stop("controller", Signal::TERM)?;
    services::patch(lab, "other2", &json!({"spec": {"type": "LoadBalancer"}}))?;
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let params =
            PatchParams { field_manager: Some("k3s".to_owned()), ..PatchParams::default() };
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": OTHER_ADDRESS}]}}});
        for name in ["other", "other2"] {
            services.patch_status(name, &params, &Patch::Merge(&status)).await?;
        }
        Ok(())
    })?;
    lab.restart("controller")?;
    let reason = |name: &'static str, reason: &'static str| {
        services::wait_for(lab, name, reason, move |service| {
            let condition = services::condition(service, ADDRESS_ASSIGNED)?;
            (condition.reason == reason).then(|| condition.message.clone())
        })
    };
    let message = reason("other2", "ServedByOther")?;
    ensure!(message.contains("field manager \"k3s\""), "{message}");
    services::wait_addresses(lab, "other2", &[OTHER_ADDRESS])?;
    let other = services::get(lab, "other")?;
    ensure!(services::condition(&other, ADDRESS_ASSIGNED).is_none(), "{other:?}");
    // The command from the documentation adopts all Services of the cluster.
    let adopt = ["annotate", "services", "--all-namespaces"];
    let adopt = [&adopt[..], &["--field-selector=spec.type=LoadBalancer", "ferrolb.io/adopt=true"]];
    lab.kubectl(&adopt.concat())?;
    reason("other2", "Assigned")?;
    services::wait_addresses(lab, "other", &[OTHER_ADDRESS])?;
    services::delete(lab, "other")?;
    services::delete(lab, "other2")
}

/// Checks that Services get their addresses back if their pool was missing for longer than
/// `--pool-grace`.
fn lose_pool(lab: &Lab) -> Result<()> {
    ["a", "b", "c"].iter().try_for_each(|name| services::serve(lab, name).map(drop))?;
    // The first Service by name would otherwise get the first address.
    services::delete(lab, "a")?;
    let before = all_addresses(lab)?;
    delete_pool(lab)?;
    services::wait_refused(lab, "web", "NoPoolMatches")?;
    services::wait_refused(lab, "c", "NoPoolMatches")?;
    // A new leader knows the former addresses from the records only.
    lab.stop("controller", Signal::TERM)?;
    lab.restart("controller")?;
    create_pool(lab)?;
    wait_all_addresses(lab, &before)
}

/// Checks that many Services that are deleted and created again in another order get their former
/// addresses. A client of another Service connects while they are deleted for good.
fn create_again(lab: &Lab, address: IpAddr) -> Result<()> {
    lab.apply_objects(&[pools::pool("many", &["172.31.0.0/22"])])?;
    let names: Vec<_> = (0..SERVICE_COUNT).map(|n| format!("many-{n}")).collect();
    let spec = json!({"allocateLoadBalancerNodePorts": false});
    let object = |name: &String| {
        let mut object = service(name, spec.clone());
        object["metadata"]["annotations"] = json!({"ferrolb.io/address-pool": "many"});
        object
    };
    let objects: Vec<Value> = names.iter().map(object).collect();
    create_services(lab, &objects)?;
    let before = wait_count(lab, SERVICE_COUNT)?;
    let start = wait::now();
    delete_services(lab, &names)?;
    let reversed: Vec<Value> = objects.iter().rev().cloned().collect();
    create_services(lab, &reversed)?;
    let after = wait_count(lab, SERVICE_COUNT)?;
    print_measured(&format!(
        "{SERVICE_COUNT} Services deleted and created again: same addresses after {:?}",
        start.elapsed()
    ));
    ensure!(after == before, "addresses differ: {before:?} {after:?}");
    let name = format!("{SERVICE_COUNT} other Services deleted");
    probe_during(lab, address, &name, DELETED_AFTER, || delete_services(lab, &names)).map(drop)
}

fn delete_services(lab: &Lab, names: &[String]) -> Result<()> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        for name in names {
            services.delete(name, &DeleteParams::default()).await?;
        }
        Ok(())
    })
}

fn create_services(lab: &Lab, objects: &[Value]) -> Result<()> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        for object in objects {
            let object = serde_json::from_value(object.clone())?;
            services.create(&PostParams::default(), &object).await?;
        }
        Ok(())
    })
}

/// Waits until this number of Services whose names begin with `many` have addresses, and returns
/// the addresses.
fn wait_count(lab: &Lab, count: usize) -> Result<BTreeMap<String, Vec<IpAddr>>> {
    wait::until("all Services have addresses", STATE_MAX, || {
        let mut all = all_addresses(lab)?;
        all.retain(|name, addresses| name.starts_with("many") && !addresses.is_empty());
        Ok((all.len() == count).then_some(all))
    })
}

/// Checks that Services keep their addresses if the controller, the CRDs and all their objects are
/// deleted and created again. Nodes that see that the advertisement is gone announce nothing
/// meanwhile.
fn reinstall(lab: &Lab, address: IpAddr) -> Result<()> {
    let before = all_addresses(lab)?;
    let length = GRACE + AFTER;
    probe_during(lab, address, "CRDs and their objects created again", length, || {
        lab.stop("controller", Signal::TERM)?;
        delete_crds(lab)?;
        wait::during(Duration::from_secs(2), || Ok(()))?;
        lab.install_ferrolb()?;
        lab.restart("controller")?;
        create_pool(lab)?;
        lab.apply_objects(&[pools::advertisement()])?;
        wait_reason(lab, "Assigned")
    })?;
    ensure!(all_addresses(lab)? == before, "an address has changed");
    // A speaker may restore its deleted SpeakerStatus, from which the condition follows, only after
    // a minute.
    segment::wait_owner(lab, address).map(drop)
}

/// Checks that a controller with other flags removes what it wrote to the Services that it does not
/// serve any more.
fn leave(lab: &Lab) -> Result<()> {
    lab.stop("controller", Signal::TERM)?;
    let flags = [&LEASE_FLAGS[..], &["--default-implementation=false"]].concat();
    lab.start_controller_named("controller2", &flags)?;
    services::wait_released(lab, "web")?;
    let left = services::get(lab, "web")?;
    let own = field_manager(NAMESPACE);
    let ours = left.managed_fields().iter().find(|it| it.manager.as_ref() == Some(&own));
    ensure!(ours.is_none(), "the controller still owns a field: {ours:?}");
    Ok(())
}

/// Deletes all CRDs of FerroLB, with their objects, and waits until they are gone.
fn delete_crds(lab: &Lab) -> Result<()> {
    lab.api(async |client| {
        let api: Api<CustomResourceDefinition> = Api::all(client);
        for crd in crds() {
            api.delete(&crd.name_any(), &DeleteParams::default()).await?;
        }
        wait::until_async("the CRDs are gone", STATE_MAX, async || {
            let left = api.list(&ListParams::default()).await?.items;
            Ok((!left.iter().any(|crd| crd.spec.group == GROUP)).then_some(()))
        })
        .await
    })
}

/// Returns the addresses of all Services of the default namespace.
fn all_addresses(lab: &Lab) -> Result<BTreeMap<String, Vec<IpAddr>>> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let all = services.list(&ListParams::default()).await?.items;
        Ok(all.iter().map(|it| (it.name_any(), services::addresses(it))).collect())
    })
}

fn wait_all_addresses(lab: &Lab, expected: &BTreeMap<String, Vec<IpAddr>>) -> Result<()> {
    wait::until("all Services have their addresses again", STATE_MAX, || {
        let now = all_addresses(lab)?;
        Ok((now == *expected).then_some(()))
    })
}

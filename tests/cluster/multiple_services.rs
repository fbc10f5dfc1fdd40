//! Several Services side by side, and Services that are created, changed and deleted.

use crate::scenario::{run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use std::net::Ipv4Addr;

/// The first and the second address of the pool.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);

#[test]
fn each_service_has_one_address_and_one_owner_until_it_is_deleted_or_changed() {
    run_scenario(&Options::named("several"), |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node1")?;
        step("two Services have two addresses", || {
            let given = [services::serve(lab, "one")?, services::serve(lab, "two")?];
            ensure!(given == [FIRST, SECOND], "{given:?}");
            Ok(())
        })?;
        let before = step("and one owner each", || {
            segment::wait_owner(lab, FIRST)?;
            segment::wait_owner(lab, SECOND)
        })?;
        step("the address of a deleted Service falls silent", || {
            services::delete(lab, "one")?;
            segment::wait_unannounced(lab, FIRST)
        })?;
        step("the other one keeps its owner", || {
            let now = segment::owner(lab, SECOND)?;
            ensure!(now == before, "{SECOND} moved from {before} to {now}");
            Ok(())
        })?;
        step("the next Service gets the freed address, which is answered for again", || {
            let given = services::serve(lab, "three")?;
            ensure!(given == FIRST, "the Service has {given}");
            segment::wait_owner(lab, FIRST).map(drop)
        })?;
        step(
            "a Service that becomes ClusterIP gives its address back and says nothing of it",
            || become_cluster_ip(lab),
        )?;
        step("which the next one gets", || {
            let given = services::serve(lab, "four")?;
            ensure!(given == SECOND, "the Service has {given}");
            segment::wait_owner(lab, SECOND).map(drop)
        })
    });
}

/// Changes the Service `two` to type ClusterIP.
fn become_cluster_ip(lab: &Lab) -> Result<()> {
    services::patch(lab, "two", &json!({"spec": {"type": "ClusterIP"}}))?;
    services::wait_released(lab, "two")?;
    segment::wait_unannounced(lab, SECOND)
}

#[test]
fn a_service_of_another_class_is_untouched_and_one_of_ferrolbs_class_is_served() {
    run_scenario(&Options::named("classes"), |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node1")?;
        let before = step("a Service of another class is there first", || {
            lab.apply_objects(&[services::service(
                "theirs",
                json!({"loadBalancerClass": "example.com/other"}),
            )])?;
            services::get(lab, "theirs")
        })?;
        let address =
            step("one of our class, named, gets the first address and its owner", || {
                lab.apply_objects(&[services::service(
                    "ours",
                    json!({"loadBalancerClass": "ferrolb.io/ferrolb"}),
                )])?;
                let address = services::address(lab, "ours")?;
                ensure!(address == FIRST, "the Service has {address}");
                segment::wait_owner(lab, address)?;
                Ok(address)
            })?;
        step("the other class's Service was not touched", || untouched(lab, &before))?;
        step("nor is an address announced that somebody else gave it", || {
            let foreign = json!({"status": {"loadBalancer": {"ingress": [{"ip": "172.30.0.209", "ipMode": "VIP"}]}}});
            services::patch_status(lab, "theirs", &foreign)?;
            let given = services::get(lab, "theirs")?;
            // Once the next Service is served, the controller has processed everything before it.
            let next = services::serve(lab, "next")?;
            segment::wait_owner(lab, next)?;
            let answering = SegmentSocket::open(lab)?.replying([172, 30, 0, 209])?;
            ensure!(
                answering.is_empty(),
                "{answering:?} reply for an address that FerroLB did not assign"
            );
            ensure!(next != address, "two Services have {next}");
            untouched(lab, &given)
        })
    });
}

/// Checks that the Service is unchanged, including its metadata and status.
fn untouched(lab: &Lab, before: &Service) -> Result<()> {
    let now = services::get(lab, "theirs")?;
    ensure!(now == *before, "before: {before:#?}\nafter: {now:#?}");
    Ok(())
}

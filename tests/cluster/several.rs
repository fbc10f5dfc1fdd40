//! Several Services side by side, and Services that come, change and go.

use crate::client_wire::{self, Wire};
use crate::services;
use crate::stage::{play, step};
use anyhow::{Result, ensure};
use ferrolb_tests::{Lab, Options};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use std::net::Ipv4Addr;

/// The first and the second address of the pool.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);

#[test]
fn services_have_an_address_and_one_owner_each_for_as_long_as_they_want_one() {
    play(&Options::named("several"), |lab| {
        lab.start_ferrolb()?;
        services::furnish(lab, "node1")?;
        step("two Services have two addresses", || {
            let given = [services::serve(lab, "one")?, services::serve(lab, "two")?];
            ensure!(given == [FIRST, SECOND], "{given:?}");
            Ok(())
        })?;
        let before = step("and one owner each", || {
            client_wire::wait_owner(lab, FIRST)?;
            client_wire::wait_owner(lab, SECOND)
        })?;
        step("the address of a deleted Service falls silent", || {
            services::delete(lab, "one")?;
            client_wire::wait_silent(lab, FIRST)
        })?;
        step("the other one keeps its owner", || {
            let now = client_wire::owner(lab, SECOND)?;
            ensure!(now == before, "{SECOND} was answered for by {before}, and now by {now}");
            Ok(())
        })?;
        step("the next Service gets the freed address, which is answered for again", || {
            let given = services::serve(lab, "three")?;
            ensure!(given == FIRST, "it got {given}");
            client_wire::wait_owner(lab, FIRST).map(drop)
        })?;
        step("a Service that becomes ClusterIP gives its address back and says nothing of it", || leave(lab))?;
        step("which the next one gets", || {
            let given = services::serve(lab, "four")?;
            ensure!(given == SECOND, "it got {given}");
            client_wire::wait_owner(lab, SECOND).map(drop)
        })
    });
}

/// Service `two` becomes one inside the cluster only.
fn leave(lab: &Lab) -> Result<()> {
    services::patch(lab, "two", &json!({"spec": {"type": "ClusterIP"}}))?;
    services::wait_given_back(lab, "two")?;
    client_wire::wait_silent(lab, SECOND)
}

#[test]
fn a_service_of_another_class_is_left_alone_and_one_of_ours_is_served() {
    play(&Options::named("classes"), |lab| {
        lab.start_ferrolb()?;
        services::furnish(lab, "node1")?;
        let before = step("a Service of another class is there first", || {
            lab.apply_objects(&[services::service("theirs", json!({"loadBalancerClass": "example.com/other"}))])?;
            services::get(lab, "theirs")
        })?;
        let address = step("one of our class, named, gets the first address and its owner", || {
            lab.apply_objects(&[services::service("ours", json!({"loadBalancerClass": "ferrolb.io/ferrolb"}))])?;
            let address = services::address(lab, "ours")?;
            ensure!(address == FIRST, "it got {address}");
            client_wire::wait_owner(lab, address)?;
            Ok(address)
        })?;
        step("the other class's Service was not touched", || untouched(lab, &before))?;
        step("nor is an address announced that somebody else gave it", || {
            let foreign = json!({"status": {"loadBalancer": {"ingress": [{"ip": "172.30.0.209", "ipMode": "VIP"}]}}});
            services::patch_status(lab, "theirs", &foreign)?;
            let given = services::get(lab, "theirs")?;
            // The next Service is served: everything up to here has been seen.
            let next = services::serve(lab, "next")?;
            client_wire::wait_owner(lab, next)?;
            let answering = Wire::open(lab)?.answering([172, 30, 0, 209])?;
            ensure!(answering.is_empty(), "{answering:?} answer for an address that is not ours");
            ensure!(next != address, "two Services have {next}");
            untouched(lab, &given)
        })
    });
}

/// The Service is the very same object as before.
fn untouched(lab: &Lab, before: &Service) -> Result<()> {
    let now = services::get(lab, "theirs")?;
    ensure!(now == *before, "it was {before:#?}\nand is {now:#?}");
    Ok(())
}

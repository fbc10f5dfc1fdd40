//! Several Services at once: assignment and release of addresses as Services are created, changed
//! and deleted, Services without node ports, and Services of another class.

use crate::scenario::{run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::served::wait_page;
use crate::services::{self, http};
use crate::{host_addresses, pools};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options};
use ferrolb_proto::api::CustomResourceKind;
use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use std::net::Ipv4Addr;

/// The first two addresses of the pool.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 200);
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 201);

#[test]
fn services_get_and_release_addresses_and_another_class_is_never_written() {
    run_scenario(&Options::named("multiple"), |lab| {
        lab.start_ferrolb()?;
        services::apply_pool_and_pod(lab, "node1")?;
        // The pool does not remember addresses, so the next Service gets a released one.
        let spec = json!({"addresses": ["172.30.0.200-172.30.0.209"], "stickyFor": "0s"});
        lab.apply_objects(&[pools::object(CustomResourceKind::IPAddressPool, "lan", spec)])?;
        released_addresses(lab)?;
        without_node_ports(lab)?;
        other_class(lab)?;
        host_addresses::check(lab)
    })
}

fn released_addresses(lab: &Lab) -> Result<()> {
    step("two Services get two addresses", || {
        let addresses = [services::serve(lab, "one")?, services::serve(lab, "two")?];
        ensure!(addresses == [FIRST_ADDRESS, SECOND_ADDRESS], "the Services have {addresses:?}");
        Ok(())
    })?;
    let before = step("each address has one owner", || {
        segment::wait_owner(lab, FIRST_ADDRESS)?;
        segment::wait_owner(lab, SECOND_ADDRESS)
    })?;
    step("no node announces the address of a deleted Service", || {
        services::delete(lab, "one")?;
        segment::wait_unannounced(lab, FIRST_ADDRESS)
    })?;
    step("the other address keeps its owner", || {
        let now = segment::owner(lab, SECOND_ADDRESS)?;
        ensure!(now == before, "{SECOND_ADDRESS} moved from {before} to {now}");
        Ok(())
    })?;
    step("a new Service gets the released address, and a node announces it", || {
        let address = services::serve(lab, "three")?;
        ensure!(address == FIRST_ADDRESS, "the Service has {address}");
        segment::wait_owner(lab, FIRST_ADDRESS).map(drop)
    })?;
    step("a Service that becomes ClusterIP releases its address and loses its condition", || {
        change_to_cluster_ip(lab)
    })?;
    step("the next Service gets the address of the ClusterIP Service", || {
        let address = services::serve(lab, "four")?;
        ensure!(address == SECOND_ADDRESS, "the Service has {address}");
        segment::wait_owner(lab, SECOND_ADDRESS).map(drop)
    })
}

/// Changes the Service `two` to type ClusterIP.
fn change_to_cluster_ip(lab: &Lab) -> Result<()> {
    services::patch(lab, "two", &json!({"spec": {"type": "ClusterIP"}}))?;
    services::wait_released(lab, "two")?;
    segment::wait_unannounced(lab, SECOND_ADDRESS)
}

fn without_node_ports(lab: &Lab) -> Result<()> {
    let without = json!({"allocateLoadBalancerNodePorts": false});
    lab.apply_objects(&[services::service("portless", without)])?;
    let address = services::address(lab, "portless")?;
    step("a Service without node ports is served", || {
        let ports =
            services::get(lab, "portless")?.spec.and_then(|spec| spec.ports).unwrap_or_default();
        ensure!(ports.len() == 1 && ports[0].node_port.is_none(), "the ports are {ports:?}");
        segment::wait_owner(lab, address)?;
        wait_page(lab, http(address), "web").map(drop)
    })
}

fn other_class(lab: &Lab) -> Result<()> {
    let before = step("a Service of another class is created first", || {
        lab.apply_objects(&[services::service(
            "other-class",
            json!({"loadBalancerClass": "example.com/other"}),
        )])?;
        services::get(lab, "other-class")
    })?;
    let address =
        step("a Service of FerroLB's class gets an address, and a node announces it", || {
            lab.apply_objects(&[services::service(
                "own-class",
                json!({"loadBalancerClass": "ferrolb.io/ferrolb"}),
            )])?;
            let address = services::address(lab, "own-class")?;
            segment::wait_owner(lab, address)?;
            Ok(address)
        })?;
    step("FerroLB does not write the Service of another class", || check_unchanged(lab, &before))?;
    step("no node announces an address that another controller assigned", || {
        let foreign = json!({"status": {"loadBalancer": {"ingress": [{"ip": "172.30.0.209", "ipMode": "VIP"}]}}});
        services::patch_status(lab, "other-class", &foreign)?;
        let assigned = services::get(lab, "other-class")?;
        // Once the next Service is served, the controller has processed everything before it.
        let next = services::serve(lab, "next")?;
        segment::wait_owner(lab, next)?;
        let replying = SegmentSocket::open(lab)?.replying([172, 30, 0, 209])?;
        ensure!(
            replying.is_empty(),
            "{replying:?} reply for an address that FerroLB did not assign"
        );
        ensure!(next != address, "two Services have {next}");
        check_unchanged(lab, &assigned)
    })
}

/// Checks that the Service of another class is unchanged, including its metadata and status.
fn check_unchanged(lab: &Lab, before: &Service) -> Result<()> {
    let now = services::get(lab, "other-class")?;
    ensure!(now == *before, "the Service changed from {before:#?}\nto {now:#?}");
    Ok(())
}

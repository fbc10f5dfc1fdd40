//! Types of Services: fields that an assignment must not change, and Services that change to
//! another type.

use crate::conflicting_writers::FIELD_MANAGER;
use crate::pools::{self, pool};
use crate::scenario::step;
use crate::services::{self, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_proto::api::{ASSIGNED_ANNOTATION, CustomResourceKind, GROUP, pool_annotation};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The first two addresses of the pool.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 0);
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 1);

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("an address in the externalIPs of a Service is skipped, and the pool reports it", || {
        let object =
            service("external", json!({"type": "ClusterIP", "externalIPs": [FIRST_ADDRESS]}));
        lab.apply_objects(&[object, pool("types", &["172.30.1.0/24"])])?;
        let message = format!("{FIRST_ADDRESS} (in spec.externalIPs of Service default/external)");
        pools::wait_reason(lab, CustomResourceKind::IPAddressPool, "types", "Valid", &message)
    })?;
    step("a Service keeps its own externalIPs", || {
        let address = serve(lab, &service("own", json!({"externalIPs": ["192.0.2.7"]})))?;
        ensure!(address == SECOND_ADDRESS, "the Service has {address}");
        let external = services::get(lab, "external")?;
        ensure!(
            !field_managers(&external).contains(&FIELD_MANAGER.to_owned()),
            "FerroLB has written a ClusterIP Service: {:#?}",
            external.metadata.managed_fields
        );
        Ok(())
    })?;
    step("node ports are allocated and removed, and the address stays", || check_node_ports(lab))?;
    step("a Service with externalTrafficPolicy Local keeps its healthCheckNodePort", || {
        serve(lab, &service("local", json!({"externalTrafficPolicy": "Local"})))?;
        let port = services::get(lab, "local")?.spec.and_then(|spec| spec.health_check_node_port);
        ensure!(port.is_some_and(|port| port > 0), "the healthCheckNodePort is {port:?}");
        Ok(())
    })?;
    step("a Service without a selector is served", || {
        let mut object = service("unselected", json!({}));
        object["spec"].as_object_mut().context("the Service has no spec")?.remove("selector");
        serve(lab, &object).map(drop)
    })?;
    step(
        "a Service of another type releases its address, and gets it again as LoadBalancer",
        || change_type(lab),
    )
}

/// Applies a Service, waits for its address, and checks that its spec has not changed.
fn serve(lab: &Lab, object: &Value) -> Result<Ipv4Addr> {
    let name = object["metadata"]["name"].as_str().context("the Service has no name")?;
    lab.apply_objects(std::slice::from_ref(object))?;
    let made = services::get(lab, name)?;
    let address = services::address(lab, name)?;
    check_spec_unchanged(lab, &made)?;
    Ok(address)
}

/// Checks that the spec of the Service is as in `before`, and that FerroLB owns only the status and
/// its annotations.
fn check_spec_unchanged(lab: &Lab, before: &Service) -> Result<()> {
    let now =
        services::get(lab, before.metadata.name.as_deref().context("the Service has no name")?)?;
    ensure!(
        now.spec == before.spec,
        "the spec changed from {:#?}\nto {:#?}",
        before.spec,
        now.spec
    );
    let written = now
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    let written: Vec<Value> =
        written.filter_map(|entry| Some(entry.fields_v1.as_ref()?.0.clone())).collect();
    ensure!(!written.is_empty(), "FerroLB has written nothing: {:#?}", now.metadata.managed_fields);
    for mut fields in written {
        let map = fields.as_object_mut().context("the managed fields are no object")?;
        map.remove("f:status");
        let metadata = map.remove("f:metadata").unwrap_or(json!({"f:annotations": {}}));
        ensure!(map.is_empty(), "FerroLB has written {map:?}");
        let pool = format!("f:{}", pool_annotation(GROUP));
        let record = format!("f:{ASSIGNED_ANNOTATION}");
        let expected = json!({"f:annotations": {pool: {}, record: {}}});
        ensure!(metadata == expected, "FerroLB has written {metadata}");
    }
    Ok(())
}

fn field_managers(service: &Service) -> Vec<String> {
    service
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| entry.manager.clone())
        .collect()
}

/// Checks that a Service keeps its address while it gets a node port and loses it again.
fn check_node_ports(lab: &Lab) -> Result<()> {
    let address = serve(lab, &service("ports", json!({"allocateLoadBalancerNodePorts": false})))?;
    ensure!(node_port(&services::get(lab, "ports")?).is_none(), "the Service has a node port");
    let changes = [
        ("node ports enabled", json!({"allocateLoadBalancerNodePorts": true}), true),
        (
            "node ports disabled, which keeps the port",
            json!({"allocateLoadBalancerNodePorts": false}),
            true,
        ),
        ("node port removed", json!({"ports": [{"port": 80, "targetPort": 8080}]}), false),
    ];
    for (what, spec, expect) in changes {
        services::patch(lab, "ports", &json!({"spec": spec}))?;
        let made = services::get(lab, "ports")?;
        ensure!(node_port(&made).is_some() == expect, "{what}: the spec is {:?}", made.spec);
        // Once another Service is served, the controller has processed this change.
        services::serve(lab, "next")?;
        services::delete(lab, "next")?;
        check_spec_unchanged(lab, &made).context(what)?;
        let now = services::get(lab, "ports")?;
        ensure!(services::addresses(&now) == [address], "{what}: the status is {:?}", now.status);
    }
    Ok(())
}

fn node_port(service: &Service) -> Option<i32> {
    let ports: &[ServicePort] = service.spec.as_ref()?.ports.as_deref()?;
    ports.first()?.node_port
}

fn change_type(lab: &Lab) -> Result<()> {
    let address = services::serve(lab, "changing")?;
    let other_types = [
        json!({"type": "ClusterIP"}),
        json!({"type": "NodePort"}),
        json!({"type": "ExternalName", "externalName": "example.com"}),
    ];
    for spec in other_types {
        services::patch(lab, "changing", &json!({"spec": spec}))?;
        services::wait_released(lab, "changing").with_context(|| spec.to_string())?;
        services::patch(
            lab,
            "changing",
            &json!({"spec": {"type": "LoadBalancer", "externalName": null}}),
        )?;
        let again = services::address(lab, "changing").with_context(|| spec.to_string())?;
        ensure!(again == address, "{spec}: the address changed from {address} to {again}");
    }
    Ok(())
}

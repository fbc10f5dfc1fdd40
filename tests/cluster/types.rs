//! Class and type: fields of a Service that an assignment must not change, and Services that change
//! to another type.

use crate::conflicting_writers::OURS;
use crate::pools::{self, pool};
use crate::scenario::step;
use crate::services::{self, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_proto::api::{CustomResourceKind, GROUP, pool_annotation};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// The first and the second address of the pool.
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 0);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 1);

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("an address that is somebody's externalIP is skipped, and the pool says so", || {
        let object = service("external", json!({"type": "ClusterIP", "externalIPs": [FIRST]}));
        lab.apply_objects(&[object, pool("types", &["172.30.1.0/24"])])?;
        let said = format!("{FIRST} (in spec.externalIPs of Service default/external)");
        pools::wait_reason(lab, CustomResourceKind::IPAddressPool, "types", "Valid", &said)
    })?;
    step("a Service keeps its own externalIPs", || {
        let given = serve(lab, &service("own", json!({"externalIPs": ["192.0.2.7"]})))?;
        ensure!(given == SECOND, "the Service has {given}");
        let external = services::get(lab, "external")?;
        ensure!(
            !writers(&external).contains(&OURS.to_owned()),
            "{:#?}",
            external.metadata.managed_fields
        );
        Ok(())
    })?;
    step("node ports come and go as the Service says, and its address stays", || node_ports(lab))?;
    step("the health check's node port of an externalTrafficPolicy Local stays", || {
        serve(lab, &service("local", json!({"externalTrafficPolicy": "Local"})))?;
        let port = services::get(lab, "local")?.spec.and_then(|spec| spec.health_check_node_port);
        ensure!(port.is_some_and(|port| port > 0), "the port is {port:?}");
        Ok(())
    })?;
    step("a Service without a selector is served", || {
        let mut object = service("unselected", json!({}));
        object["spec"].as_object_mut().context("a spec")?.remove("selector");
        serve(lab, &object).map(drop)
    })?;
    step(
        "one that turns into another type gives back, and gets an address again when it turns back",
        || change_type(lab),
    )
}

/// Applies a Service and waits for its address. Checks that nothing in its spec has changed
/// meanwhile.
fn serve(lab: &Lab, object: &Value) -> Result<Ipv4Addr> {
    let name = object["metadata"]["name"].as_str().context("a name")?;
    lab.apply_objects(std::slice::from_ref(object))?;
    let made = services::get(lab, name)?;
    let address = services::address(lab, name)?;
    untouched(lab, &made)?;
    Ok(address)
}

/// Checks that the spec of the Service is as in `before`, and that FerroLB owns only the status and
/// one annotation.
fn untouched(lab: &Lab, before: &Service) -> Result<()> {
    let now = services::get(lab, before.metadata.name.as_deref().context("a name")?)?;
    ensure!(now.spec == before.spec, "before: {:#?}\nafter: {:#?}", before.spec, now.spec);
    let written = now
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| entry.manager.as_deref() == Some(OURS));
    let written: Vec<Value> =
        written.filter_map(|entry| Some(entry.fields_v1.as_ref()?.0.clone())).collect();
    ensure!(!written.is_empty(), "FerroLB has written nothing: {:#?}", now.metadata.managed_fields);
    for mut fields in written {
        let map = fields.as_object_mut().context("an object")?;
        map.remove("f:status");
        let metadata = map.remove("f:metadata").unwrap_or(json!({"f:annotations": {}}));
        ensure!(map.is_empty(), "FerroLB has written {map:?}");
        let ours = json!({"f:annotations": {format!("f:{}", pool_annotation(GROUP)): {}}});
        ensure!(metadata == ours, "FerroLB has written {metadata}");
    }
    Ok(())
}

fn writers(service: &Service) -> Vec<String> {
    service
        .metadata
        .managed_fields
        .iter()
        .flatten()
        .filter_map(|entry| entry.manager.clone())
        .collect()
}

/// Checks a Service without node ports that gets them and loses them again.
fn node_ports(lab: &Lab) -> Result<()> {
    let address = serve(lab, &service("ports", json!({"allocateLoadBalancerNodePorts": false})))?;
    ensure!(node_port(&services::get(lab, "ports")?).is_none(), "the Service has a node port");
    let steps = [
        ("on", json!({"allocateLoadBalancerNodePorts": true}), true),
        ("off, which takes none away", json!({"allocateLoadBalancerNodePorts": false}), true),
        ("removed by hand", json!({"ports": [{"port": 80, "targetPort": 8080}]}), false),
    ];
    for (what, spec, expect) in steps {
        services::patch(lab, "ports", &json!({"spec": spec}))?;
        let made = services::get(lab, "ports")?;
        ensure!(node_port(&made).is_some() == expect, "{what}: {:?}", made.spec);
        // Once another Service is served, the controller has processed this change.
        services::serve(lab, "next")?;
        services::delete(lab, "next")?;
        untouched(lab, &made).context(what)?;
        let now = services::get(lab, "ports")?;
        ensure!(services::addresses(&now) == [address], "{what}: {:?}", now.status);
    }
    Ok(())
}

fn node_port(service: &Service) -> Option<i32> {
    let ports: &[ServicePort] = service.spec.as_ref()?.ports.as_deref()?;
    ports.first()?.node_port
}

fn change_type(lab: &Lab) -> Result<()> {
    let address = services::serve(lab, "turning")?;
    let away = [
        json!({"type": "ClusterIP"}),
        json!({"type": "NodePort"}),
        json!({"type": "ExternalName", "externalName": "example.com"}),
    ];
    for spec in away {
        services::patch(lab, "turning", &json!({"spec": spec}))?;
        services::wait_released(lab, "turning").with_context(|| spec.to_string())?;
        services::patch(
            lab,
            "turning",
            &json!({"spec": {"type": "LoadBalancer", "externalName": null}}),
        )?;
        let again = services::address(lab, "turning").with_context(|| spec.to_string())?;
        ensure!(again == address, "{spec}: the address changed from {address} to {again}");
    }
    Ok(())
}

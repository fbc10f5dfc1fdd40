//! Class and type: what stays untouched in a Service that gets an address, and what becomes of one that is no LoadBalancer any more.

use crate::pools::{self, pool};
use crate::quarrel::OURS;
use crate::services::{self, service};
use crate::stage::step;
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::{GROUP, Kind, from_pool};
use ferrolb_tests::Lab;
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
        pools::wait_reason(lab, Kind::IPAddressPool, "types", "Valid", &said)
    })?;
    step("a Service keeps its own externalIPs", || {
        let given = serve(lab, &service("own", json!({"externalIPs": ["192.0.2.7"]})))?;
        ensure!(given == SECOND, "it got {given}");
        let external = services::get(lab, "external")?;
        ensure!(!writers(&external).contains(&OURS.to_owned()), "{:#?}", external.metadata.managed_fields);
        Ok(())
    })?;
    step("node ports come and go as the Service says, and its address stays", || node_ports(lab))?;
    step("the health check's node port of an externalTrafficPolicy Local stays", || {
        serve(lab, &service("local", json!({"externalTrafficPolicy": "Local"})))?;
        let port = services::get(lab, "local")?.spec.and_then(|spec| spec.health_check_node_port);
        ensure!(port.is_some_and(|port| port > 0), "it is {port:?}");
        Ok(())
    })?;
    step("a Service without a selector is served", || {
        let mut object = service("unselected", json!({}));
        object["spec"].as_object_mut().context("a spec")?.remove("selector");
        serve(lab, &object).map(drop)
    })?;
    step("one that turns into another type gives back, and gets an address again when it turns back", || turn(lab))
}

/// Applies a Service and waits for its address; nothing in its spec is changed meanwhile.
fn serve(lab: &Lab, object: &Value) -> Result<Ipv4Addr> {
    let name = object["metadata"]["name"].as_str().context("a name")?;
    lab.apply_objects(std::slice::from_ref(object))?;
    let made = services::get(lab, name)?;
    let address = services::address(lab, name)?;
    untouched(lab, &made)?;
    Ok(address)
}

/// The spec of the Service is what it was in `before`, and of all fields only status and annotation are ours.
fn untouched(lab: &Lab, before: &Service) -> Result<()> {
    let now = services::get(lab, before.metadata.name.as_deref().context("a name")?)?;
    ensure!(now.spec == before.spec, "it was {:#?}\nand is {:#?}", before.spec, now.spec);
    let written = now.metadata.managed_fields.iter().flatten().filter(|entry| entry.manager.as_deref() == Some(OURS));
    let written: Vec<Value> = written.filter_map(|entry| Some(entry.fields_v1.as_ref()?.0.clone())).collect();
    ensure!(!written.is_empty(), "we have written nothing: {:#?}", now.metadata.managed_fields);
    for mut fields in written {
        let map = fields.as_object_mut().context("an object")?;
        map.remove("f:status");
        let metadata = map.remove("f:metadata").unwrap_or(json!({"f:annotations": {}}));
        ensure!(map.is_empty(), "we have written {map:?}");
        let ours = json!({"f:annotations": {format!("f:{}", from_pool(GROUP)): {}}});
        ensure!(metadata == ours, "we have written {metadata}");
    }
    Ok(())
}

fn writers(service: &Service) -> Vec<String> {
    service.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.clone()).collect()
}

/// A Service without node ports gets them and loses them again.
fn node_ports(lab: &Lab) -> Result<()> {
    let address = serve(lab, &service("ports", json!({"allocateLoadBalancerNodePorts": false})))?;
    ensure!(node_port(&services::get(lab, "ports")?).is_none(), "it has a node port");
    let steps = [
        ("on", json!({"allocateLoadBalancerNodePorts": true}), true),
        ("off, which takes none away", json!({"allocateLoadBalancerNodePorts": false}), true),
        ("removed by hand", json!({"ports": [{"port": 80, "targetPort": 8080}]}), false),
    ];
    for (what, spec, expect) in steps {
        services::patch(lab, "ports", &json!({"spec": spec}))?;
        let made = services::get(lab, "ports")?;
        ensure!(node_port(&made).is_some() == expect, "{what}: {:?}", made.spec);
        // Another Service is served: the controller has seen this.
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

fn turn(lab: &Lab) -> Result<()> {
    let address = services::serve(lab, "turning")?;
    let away = [
        json!({"type": "ClusterIP"}),
        json!({"type": "NodePort"}),
        json!({"type": "ExternalName", "externalName": "example.com"}),
    ];
    for spec in away {
        services::patch(lab, "turning", &json!({"spec": spec}))?;
        services::wait_given_back(lab, "turning").with_context(|| spec.to_string())?;
        services::patch(lab, "turning", &json!({"spec": {"type": "LoadBalancer", "externalName": null}}))?;
        let again = services::address(lab, "turning").with_context(|| spec.to_string())?;
        ensure!(again == address, "{spec}: it had {address} and got {again}");
    }
    Ok(())
}

//! In-place migration from MetalLB, `--api-group=metallb.io`: FerroLB uses MetalLB's custom
//! resources and objects in MetalLB's namespace, and writes to none of them.

use crate::pools::STATE_MAX;
use crate::scenario::{one_node, run_scenario, step};
use crate::services::{self, ADDRESS_ASSIGNED, WEB, http, service};
use crate::{metrics, segment};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb;
use ferrolb_lab::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_lab::{Lab, Signal, wait};
use ferrolb_proto::api::{
    ADDRESS_MEMORY, ASSIGNED_ANNOTATION, CustomResourceKind, pool_annotation, resource,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

/// MetalLB's API group, and the namespace in its manual.
const GROUP: &str = "metallb.io";
const NAMESPACE: &str = "metallb-system";
const FLAGS: [&str; 2] = ["--api-group=metallb.io", "--namespace=metallb-system"];
/// MetalLB's custom resources that FerroLB reads.
const CRDS: &str = include_str!("fixtures/metallb_crds.yaml");
/// The node of the lab.
const NODE: &str = "node1";
/// Address that MetalLB has assigned before the migration.
const METALLB_ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 245);

#[test]
fn metallbs_layer_2_objects_are_served_unchanged() {
    run_scenario(&one_node("l2migration"), |lab| {
        lab.install_ferrolb()?;
        step("the objects of MetalLB exist", || apply_metallb_objects(lab))?;
        step("FerroLB starts with MetalLB's API group", || lab.start_components(&FLAGS))?;
        step(
            "a Service keeps the address that MetalLB assigned, and its condition reports it",
            || wait_assigned(lab, "before", &[METALLB_ADDRESS.into()], "first-pool"),
        )?;
        step("a new Service gets an address and is served", || {
            lab.pod("web", NODE, &WEB)?;
            let address = services::serve(lab, "web")?;
            wait_assigned(lab, "web", &[address.into()], "first-pool")?;
            ensure!(segment::wait_owner(lab, address)? == NODE, "another node owns the address");
            wait::until("the client gets the page", STATE_MAX, || {
                let page = lab.http_get(CLIENT, http(address), "/")?;
                ensure!(page.body.starts_with("web"), "the client gets {page:?}");
                Ok(Some(()))
            })
        })?;
        step("two Services share an address by MetalLB's deprecated annotation", || {
            lab.apply_objects(&[
                sharing_service("dns-tcp", "TCP"),
                sharing_service("dns-udp", "UDP"),
            ])?;
            let [tcp, udp] =
                [services::address(lab, "dns-tcp")?, services::address(lab, "dns-udp")?];
            ensure!(tcp == udp, "the Services have {tcp} and {udp}");
            Ok(())
        })?;
        step(
            "an IPv6 Service gets the first address after the Subnet-Router anycast address",
            || {
                lab.apply_objects(&[service("six", json!({"ipFamilies": ["IPv6"]}))])?;
                wait_assigned(lab, "six", &["fd30:1::1".parse()?], "huge")
            },
        )?;
        step("metrics show the use of the pools", || {
            let name = "ferrolb_allocator_addresses_in_use_total";
            let used = metrics::metric(lab, CONTROL_PLANE, name)?;
            ensure!(used == 4.0, "{used} addresses are in use, not 4");
            Ok(())
        })?;
        step("MetalLB's objects are not written, and no write is refused", || check_writes(lab))?;
        step("without the CRD Community, Services get addresses", || without_communities(lab))?;
        step("the address of a deleted Service is remembered in MetalLB's namespace", || {
            remember(lab, "later")
        })
    });
}

/// Checks that the controller wrote to Services and to none of MetalLB's objects, and that no write
/// was refused.
fn check_writes(lab: &Lab) -> Result<()> {
    let service = lab.get("/api/v1/namespaces/default/services/web")?;
    let managers = service["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut managers = managers.filter_map(|entry| entry["manager"].as_str());
    ensure!(managers.any(is_controller), "the field manager has another name");
    for (kind, name) in [
        (CustomResourceKind::IPAddressPool, "first-pool"),
        (CustomResourceKind::L2Advertisement, "example"),
        (CustomResourceKind::Community, "community1"),
    ] {
        let kind_name = kind.name();
        ensure!(!written(lab, kind, name)?, "the controller wrote to {kind_name} {name}");
    }
    let errors = metrics::metric(lab, CONTROL_PLANE, "ferrolb_controller_write_errors_total")?;
    ensure!(errors == 0.0, "the controller counts {errors} write errors");
    let log = lab.logs(&ferrolb::speaker_name(NODE));
    let refused: Vec<_> = log
        .lines()
        .filter(|line| line.contains("WARN") && line.contains("SpeakerStatus"))
        .collect();
    ensure!(refused.is_empty(), "the speaker logged {refused:#?}");
    Ok(())
}

/// Deletes a Service, and waits until the ConfigMap of deleted Services has it.
fn remember(lab: &Lab, name: &str) -> Result<()> {
    services::delete(lab, name)?;
    wait::until("the ConfigMap has the Service", STATE_MAX, || {
        let remembered = lab.api(async |client| {
            let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
            Ok(maps.get_opt(ADDRESS_MEMORY).await?)
        })?;
        let data = remembered.and_then(|map| map.data).unwrap_or_default();
        Ok(data.contains_key(&format!("default.{name}")).then_some(()))
    })
}

/// Creates MetalLB's CRDs, its namespace, the objects of its manual, and a Service with an address
/// from MetalLB. FerroLB's permissions come from `deploy/install-metallb-takeover.yaml`.
fn apply_metallb_objects(lab: &Lab) -> Result<()> {
    lab.apply(CRDS)?;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let metallb_object = |kind: CustomResourceKind, name: &str, spec: Value| {
        let mut object = json!({
            "apiVersion": format!("{GROUP}/v1beta1"), "kind": kind.name(), "metadata": {"name": name, "namespace": NAMESPACE},
        });
        if !spec.is_null() {
            object["spec"] = spec;
        }
        object
    };
    let alias = json!({"communities": [{"name": "vpn-only", "value": "1234:1"}]});
    let mut before = service("before", json!({}));
    before["metadata"]["annotations"] = json!({(pool_annotation(GROUP)): "first-pool"});
    let mut objects = vec![
        namespace,
        metallb_object(
            CustomResourceKind::IPAddressPool,
            "first-pool",
            json!({"addresses": ["172.30.0.240-172.30.0.250"]}),
        ),
        metallb_object(
            CustomResourceKind::IPAddressPool,
            "huge",
            json!({"addresses": ["fd30:1::/64"]}),
        ),
        metallb_object(CustomResourceKind::L2Advertisement, "example", Value::Null),
        metallb_object(CustomResourceKind::Community, "community1", alias),
        before,
    ];
    objects.extend(ferrolb::migration_permissions()?);
    lab.apply_objects(&objects)?;
    // MetalLB writes no ipMode; the API server sets the default.
    services::patch_status(
        lab,
        "before",
        &json!({"status": {"loadBalancer": {"ingress": [{"ip": METALLB_ADDRESS}]}}}),
    )
}

/// Waits until a Service has these addresses, MetalLB's annotation names this pool, and the
/// condition that FerroLB sets reports the assignment. Of FerroLB's annotations, the Service has
/// only the record.
fn wait_assigned(lab: &Lab, name: &str, addresses: &[IpAddr], pool: &str) -> Result<()> {
    services::wait_for(lab, name, &format!("{addresses:?} of pool {pool}"), |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let reported = condition.status == "True"
            && condition.reason == "Assigned"
            && condition.message.contains(pool);
        let annotations = service.annotations();
        let named =
            annotations.get("metallb.io/ip-allocated-from-pool").is_some_and(|from| from == pool);
        let own_annotations = annotations.keys().filter(|key| key.starts_with("ferrolb.io/"));
        let has_record = own_annotations.eq([ASSIGNED_ANNOTATION]);
        (services::addresses(service) == addresses && reported && named && has_record).then_some(())
    })
}

/// Returns a Service on port 53 that shares its address by MetalLB's deprecated annotation.
fn sharing_service(name: &str, protocol: &str) -> Value {
    let mut object =
        service(name, json!({"ports": [{"port": 53, "targetPort": 8080, "protocol": protocol}]}));
    object["metadata"]["annotations"] = json!({"metallb.universe.tf/allow-shared-ip": "dns"});
    object
}

/// Returns whether the controller has written to an object.
fn written(lab: &Lab, kind: CustomResourceKind, name: &str) -> Result<bool> {
    let object: DynamicObject = lab.api(async |client| {
        let objects: Api<DynamicObject> =
            Api::namespaced_with(client, NAMESPACE, &resource(kind, GROUP));
        Ok(objects.get(name).await?)
    })?;
    Ok(object.managed_fields().iter().any(|it| it.manager.as_deref().is_some_and(is_controller)))
}

/// Returns whether a field manager is the controller's.
fn is_controller(manager: &str) -> bool {
    manager.starts_with("ferrolb-controller")
}

/// Deletes the CRD Community, restarts the controller, and checks that the controller logs the
/// missing CRD and still assigns addresses.
fn without_communities(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "crd", "communities.metallb.io"])?;
    lab.stop(ferrolb::CONTROLLER, Signal::TERM)?;
    let log_length = lab.logs(ferrolb::CONTROLLER).len();
    lab.restart(ferrolb::CONTROLLER)?;
    let address = services::serve(lab, "later")?;
    wait_assigned(lab, "later", &[address.into()], "first-pool")?;
    wait::until("the controller logs the missing CRD", STATE_MAX, || {
        let logs = lab.logs(ferrolb::CONTROLLER);
        let is_missing = |line: &str| {
            line.contains("the cluster does not have this kind") && line.contains("Communities")
        };
        Ok(logs[log_length..].lines().any(is_missing).then_some(()))
    })
    .context("in the controller's log")
}

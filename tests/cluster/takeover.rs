//! The take-over mode, `--api-group=metallb.io`: the same programs on MetalLB's own kinds and objects, in MetalLB's namespace. Nothing is
//! written that MetalLB's CRDs have no place for.

use crate::pools::BRINGING_MAX;
use crate::services::{self, ADDRESS_ASSIGNED, WEB, http, service};
use crate::stage::{one_node, play, step};
use crate::{client_wire, metrics};
use anyhow::{Context, Result, anyhow, ensure};
use ferrolb_proto::api::{Kind, from_pool, resource};
use ferrolb_tests::cluster::ferrolb;
use ferrolb_tests::topology::{CLIENT, CONTROL_PLANE};
use ferrolb_tests::{Lab, Signal, wait};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

/// MetalLB's API group, and the namespace that its manual takes.
const GROUP: &str = "metallb.io";
const NAMESPACE: &str = "metallb-system";
const FLAGS: [&str; 2] = ["--api-group=metallb.io", "--namespace=metallb-system"];
/// Its kinds, as far as they are ours to read.
const CRDS: &str = include_str!("fixtures/metallb_crds.yaml");
/// The node of the lab.
const NODE: &str = "node1";
/// What MetalLB gave before.
const BEFORE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 245);

#[test]
fn metallbs_own_objects_are_served_as_they_are() {
    play(&one_node("takeover"), |lab| {
        lab.install_ferrolb()?;
        step("a cluster as MetalLB leaves it", || left_by_metallb(lab))?;
        step("FerroLB takes over", || start(lab))?;
        step("the pools are counted in MetalLB's four numbers, and nothing else is written to them", || {
            wait_status(lab, "first-pool", &counts([1, 10], [0, 0]))?;
            // MetalLB's own word for more than fits.
            wait_status(lab, "huge", &counts([0, 0], [0, i64::MAX]))
        })?;
        step("a Service keeps the address that MetalLB gave it, and says so", || {
            assigned(lab, "before", &[BEFORE.into()], "first-pool")
        })?;
        step("another one gets one, is announced, and its page reaches the client", || {
            lab.pod("web", NODE, &WEB)?;
            let address = services::serve(lab, "web")?;
            assigned(lab, "web", &[address.into()], "first-pool")?;
            ensure!(client_wire::wait_owner(lab, address)? == NODE, "the one node answers");
            wait::until("the page", BRINGING_MAX, || {
                let page = lab.http_get(CLIENT, http(address), "/")?;
                ensure!(page.body.starts_with("web"), "{page:?}");
                Ok(Some(()))
            })
        })?;
        step("two share one by MetalLB's deprecated annotation", || {
            lab.apply_objects(&[sharing("dns-tcp", "TCP"), sharing("dns-udp", "UDP")])?;
            let [tcp, udp] = [services::address(lab, "dns-tcp")?, services::address(lab, "dns-udp")?];
            ensure!(tcp == udp, "they have {tcp} and {udp}");
            wait_status(lab, "first-pool", &counts([3, 8], [0, 0]))
        })?;
        step("one has the first address of a huge pool after the Subnet-Router anycast address", || {
            lab.apply_objects(&[service("six", json!({"ipFamilies": ["IPv6"]}))])?;
            assigned(lab, "six", &["fd30:1::1".parse()?], "huge")?;
            wait_status(lab, "huge", &counts([0, 0], [1, i64::MAX]))
        })?;
        step("what has no place for a status was written none, and no write was refused", || {
            ensure!(written(lab, Kind::IPAddressPool, "first-pool")?, "its writes are known by another name");
            ensure!(!written(lab, Kind::L2Advertisement, "example")?, "it wrote to the advertisement");
            ensure!(!written(lab, Kind::Community, "community1")?, "it wrote to the Community");
            let errors = metrics::metric(lab, CONTROL_PLANE, "ferrolb_controller_write_errors_total")?;
            ensure!(errors == 0.0, "{errors} write errors");
            let said = lab.logs(&ferrolb::speaker_name(NODE));
            let refused: Vec<_> =
                said.lines().filter(|line| line.contains("WARN") && line.contains("SpeakerStatus")).collect();
            ensure!(refused.is_empty(), "the speaker said {refused:#?}");
            Ok(())
        })?;
        step("without Communities, as in an old MetalLB, addresses are given all the same", || without_communities(lab))
    });
}

/// MetalLB's kinds, its namespace, the objects of its manual, and a Service that it has served. Our programs' rights there are those of
/// `deploy/install-metallb-takeover.yaml`.
fn left_by_metallb(lab: &Lab) -> Result<()> {
    lab.apply(CRDS)?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let own = |kind: Kind, name: &str, spec: Value| {
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
    before["metadata"]["annotations"] = json!({(from_pool(GROUP)): "first-pool"});
    let mut objects = vec![
        namespace,
        own(Kind::IPAddressPool, "first-pool", json!({"addresses": ["172.30.0.240-172.30.0.250"]})),
        own(Kind::IPAddressPool, "huge", json!({"addresses": ["fd30:1::/64"]})),
        own(Kind::L2Advertisement, "example", Value::Null),
        own(Kind::Community, "community1", alias),
        before,
    ];
    objects.extend(ferrolb::rights_in_metallbs_place()?);
    lab.apply_objects(&objects)?;
    // MetalLB writes no ipMode; the API server sets the default.
    services::patch_status(lab, "before", &json!({"status": {"loadBalancer": {"ingress": [{"ip": BEFORE}]}}}))
}

fn start(lab: &Lab) -> Result<()> {
    lab.start_controller(&FLAGS)?;
    lab.start_speaker(NODE, &FLAGS)?;
    lab.wait_healthy(ferrolb::CONTROLLER, CONTROL_PLANE, ferrolb::ADMIN_PORT, "/readyz")?;
    lab.wait_healthy(&ferrolb::speaker_name(NODE), NODE, ferrolb::ADMIN_PORT, "/readyz")
}

/// A pool's status: assigned and available, of IPv4 and of IPv6.
fn counts(v4: [i64; 2], v6: [i64; 2]) -> Value {
    json!({"assignedIPv4": v4[0], "availableIPv4": v4[1], "assignedIPv6": v6[0], "availableIPv6": v6[1]})
}

/// Waits until the whole status of a pool is this.
fn wait_status(lab: &Lab, name: &str, expect: &Value) -> Result<()> {
    wait::until(&format!("pool {name}: {expect}"), BRINGING_MAX, || {
        let pool = own(lab, Kind::IPAddressPool, name)?;
        let status = &pool.data["status"];
        ensure!(status == expect, "it says {status}");
        Ok(Some(()))
    })
}

fn own(lab: &Lab, kind: Kind, name: &str) -> Result<DynamicObject> {
    lab.api(async |client| {
        let objects: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &resource(kind, GROUP));
        Ok(objects.get(name).await?)
    })
}

/// Waits until a Service has these addresses, of this pool by MetalLB's annotation, and our condition says so.
fn assigned(lab: &Lab, name: &str, addresses: &[IpAddr], pool: &str) -> Result<()> {
    services::wait_for(lab, name, &format!("{addresses:?} of pool {pool}"), |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let told = condition.status == "True" && condition.reason == "Assigned" && condition.message.contains(pool);
        let all = service.annotations();
        let named = all.get("metallb.io/ip-allocated-from-pool").is_some_and(|from| from == pool);
        let ours = all.keys().any(|key| key.starts_with("ferrolb.io/"));
        (services::addresses(service) == addresses && told && named && !ours).then_some(())
    })
}

/// Port 53, to be shared under the spelling that MetalLB has deprecated.
fn sharing(name: &str, protocol: &str) -> Value {
    let mut object = service(name, json!({"ports": [{"port": 53, "targetPort": 8080, "protocol": protocol}]}));
    object["metadata"]["annotations"] = json!({"metallb.universe.tf/allow-shared-ip": "dns"});
    object
}

/// Whether the controller has written to an object.
fn written(lab: &Lab, kind: Kind, name: &str) -> Result<bool> {
    let object = own(lab, kind, name)?;
    Ok(object.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some("ferrolb-controller")))
}

/// Takes the kind away and starts the controller anew.
fn without_communities(lab: &Lab) -> Result<()> {
    lab.kubectl(&["delete", "crd", "communities.metallb.io"])?;
    lab.stop(ferrolb::CONTROLLER, Signal::TERM)?;
    let said_before = lab.logs(ferrolb::CONTROLLER).len();
    lab.restart(ferrolb::CONTROLLER)?;
    let address = services::serve(lab, "later")?;
    assigned(lab, "later", &[address.into()], "first-pool")?;
    wait_status(lab, "first-pool", &counts([4, 7], [0, 0]))?;
    wait::until("a word about what is not there", BRINGING_MAX, || {
        let logs = lab.logs(ferrolb::CONTROLLER);
        let said: Vec<_> = logs[said_before..].lines().filter(|line| line.contains("has no such kinds")).collect();
        match said.as_slice() {
            [] => Ok(None),
            [once] if once.contains("Community") => Ok(Some(())),
            other => Err(anyhow!("it said {other:#?}")),
        }
    })
    .context("in the controller's log")
}

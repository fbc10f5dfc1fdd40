//! MetalLB's own BGP objects, served unchanged by `--api-group metallb.io`; README.md has the
//! drawing.

use crate::objects::{self, ADDRESSES, BGP_MAX};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::apply;
use ferrolb_lab::cluster::ferrolb::{self, CONTROLLER};
use ferrolb_lab::lab::admin;
use ferrolb_lab::routers::{BgpRoute, Peering, Router, RouterKind};
use ferrolb_lab::run::run;
use ferrolb_lab::scenario::{run_scenario, step};
use ferrolb_lab::setup::{installers, repository};
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use ferrolb_lab::topology::{CONTROL_PLANE, Host};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};

/// MetalLB's API group, and the namespace in its manual.
const GROUP: &str = "metallb.io";
const NAMESPACE: &str = "metallb-system";
const FLAGS: [&str; 2] = ["--api-group=metallb.io", "--namespace=metallb-system"];
/// MetalLB's CRDs that FerroLB uses: those for BGP, and the others.
const CRDS: [&str; 2] =
    [include_str!("metallb_crds.yaml"), include_str!("../../cluster/fixtures/metallb_crds.yaml")];
/// Host of the router.
const ROUTER: &str = ROUTERS[0];
/// Value of the named community in MetalLB's object.
const COMMUNITY: &str = "64512:100";
/// Objects that FerroLB only reads.
const READ_ONLY_OBJECTS: [&str; 6] = [
    "ipaddresspool/first-pool",
    "bgppeer/tor-v4",
    "bgppeer/tor-v6",
    "bgpadvertisement/example",
    "bfdprofile/fast",
    "community/names",
];

#[test]
fn metallbs_bgp_objects_are_served_unchanged() {
    run_scenario(&Options { nodes: 1, bgp: true, ..Options::named("bgpmigration") }, |lab| {
        let node = Host::node(1);
        lab.install_ferrolb()?;
        let router =
            step("the objects of MetalLB exist, and the router runs", || set_up(lab, &node))?;
        step("FerroLB starts with MetalLB's API group", || {
            lab.start_controller(&FLAGS)?;
            lab.start_speaker(&node.name, &FLAGS)?;
            lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ferrolb::ADMIN_PORT, "/readyz")
        })?;
        step("the router receives the Service's addresses with the named community", || {
            wait_paths(&router, &node)
        })?;
        step("the BFD sessions of the router are up", || {
            wait::until("both BFD sessions are up", BGP_MAX, || {
                let peers: Value =
                    serde_json::from_str(&router.run_command(&["show bfd peers json"])?)?;
                let mut up =
                    peers.as_array().into_iter().flatten().filter(|peer| peer["status"] == "up");
                ensure!(
                    up.by_ref().count() == ADDRESSES.len(),
                    "the BFD peers of the router are {peers}"
                );
                Ok(Some(()))
            })
        })?;
        step("the speaker reports the sessions in /state", || {
            let server = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ferrolb::ADMIN_PORT);
            wait::until("the speaker reports all sessions", BGP_MAX, || {
                let state: Value =
                    serde_json::from_str(&lab.http_get(&node.name, server, "/state")?.body)?;
                let sessions = &state["desired"]["status"]["bgp"]["sessions"];
                let mut established = sessions
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|session| session["state"] == "Established");
                ensure!(
                    established.by_ref().filter(|session| session["bfd"] == "Up").count()
                        == ADDRESSES.len(),
                    "the sessions are {sessions}"
                );
                Ok(Some(()))
            })
        })?;
        step("MetalLB's objects are not written, and no write is refused", || {
            READ_ONLY_OBJECTS.into_iter().try_for_each(|object| check_not_written(lab, object))?;
            let errors =
                admin::metric(lab, CONTROL_PLANE, "ferrolb_controller_write_errors_total")?;
            ensure!(errors == 0.0, "the controller counts {errors} write errors");
            Ok(())
        })?;
        router.stop()
    });
}

/// Creates MetalLB's CRDs, its namespace and objects, a Service with a pod, and FRR with BFD.
/// FerroLB's permissions are those of the Helm chart for MetalLB's API group and namespace.
fn set_up<'a>(lab: &'a Lab, node: &Host) -> Result<Router<'a>> {
    CRDS.into_iter().try_for_each(|crds| lab.apply(crds))?;
    let metallb_object = |version: &str, kind: &str, name: &str, spec: Value| json!({"apiVersion": format!("{GROUP}/{version}"), "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
    let peer = |name: &str, address| {
        let spec = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s", "connectTime": "1s",
            "bfdProfile": "fast"});
        metallb_object("v1beta2", "BGPPeer", name, spec)
    };
    let [router_v4, router_v6] = objects::host(lab, ROUTER)?.addresses();
    let [_, service] = objects::service();
    let mut created = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        metallb_object(
            "v1beta1",
            "IPAddressPool",
            "first-pool",
            json!({"addresses": ADDRESSES.map(objects::prefix)}),
        ),
        metallb_object(
            "v1beta1",
            "BGPAdvertisement",
            "example",
            json!({"ipAddressPools": ["first-pool"], "communities": ["vpn-only"]}),
        ),
        metallb_object(
            "v1beta1",
            "Community",
            "names",
            json!({"communities": [{"name": "vpn-only", "value": COMMUNITY}]}),
        ),
        metallb_object(
            "v1beta1",
            "BFDProfile",
            "fast",
            json!({"receiveInterval": 300, "transmitInterval": 300}),
        ),
        peer("tor-v4", router_v4),
        peer("tor-v6", router_v6),
        service,
    ];
    created.extend(roles()?);
    lab.apply_objects(&created)?;
    lab.pod("web", &node.name, &[("app", "web")])?;
    Router::start_with_peering(
        lab,
        RouterKind::Frr,
        ROUTER,
        &Peering { bfd: Some(300), ..Peering::with_nodes(lab, ROUTER)? },
    )
}

/// Returns the Roles and RoleBindings of the Helm chart with BGP for MetalLB's namespace.
fn roles() -> Result<Vec<Value>> {
    let mut helm = installers::helm()?;
    helm.args(["template", "ferrolb"]).arg(repository().join("deploy/helm/ferrolb"));
    helm.args(["--namespace", ferrolb::NAMESPACE, "--kube-version", "1.36.0"]);
    helm.args(["--set", "bgp.enabled=true", "--set", &format!("metallbNamespace={NAMESPACE}")]);
    let mut objects = apply::objects(&run(&mut helm)?)?;
    objects.retain(|object| ["Role", "RoleBinding"].contains(&apply::kind(object)));
    Ok(objects)
}

/// Waits until the router has exactly one path for each address, with the community.
fn wait_paths(router: &Router, node: &Host) -> Result<()> {
    let path = |(address, hop): (_, _)| BgpRoute {
        prefix: objects::prefix(address),
        next_hop: Some(hop),
        as_path: vec![NODE_AS],
        communities: vec![COMMUNITY.to_owned()],
        ..BgpRoute::default()
    };
    let mut expect: Vec<BgpRoute> = ADDRESSES.into_iter().zip(node.addresses()).map(path).collect();
    expect.sort();
    wait::until("the router has the paths", BGP_MAX, || {
        let routes = router.routes()?;
        ensure!(routes == expect, "{router} has {routes:#?}, not {expect:#?}");
        Ok(Some(()))
    })
}

/// Checks that an object has no status, and that the controller has not written to it.
fn check_not_written(lab: &Lab, object: &str) -> Result<()> {
    let (kind, name) = object.split_once('/').context("the object is not KIND/NAME")?;
    let arguments = [
        "get",
        &format!("{kind}.{GROUP}"),
        name,
        "-n",
        NAMESPACE,
        "-o",
        "json",
        "--show-managed-fields",
    ];
    let object: Value = serde_json::from_str(&lab.kubectl(&arguments)?)?;
    let writers = object["metadata"]["managedFields"]
        .as_array()
        .context("the object has no managedFields")?;
    ensure!(
        !writers
            .iter()
            .filter_map(|entry| entry["manager"].as_str())
            .any(|it| it.starts_with("ferrolb-controller")),
        "the controller wrote to {object:#}"
    );
    ensure!(object["status"].is_null(), "{object:#} has a status");
    Ok(())
}

//! MetalLB on a kubeadm cluster: its CustomResourceDefinitions, its objects and the state of its
//! Services are real. Pods that serve nothing stand in for its own.

use crate::web;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::routers::{Peering, Router, RouterKind};
use ferrolb_lab::setup::repository;
use ferrolb_lab::topology::Host;
use ferrolb_lab::topology::routers::{ROUTERS, hosts};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::CONDITION_ADDRESS_ASSIGNED;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

const NAMESPACE: &str = "metallb-system";
/// CustomResourceDefinitions of MetalLB.
const CRDS: [&str; 2] =
    ["tests/cluster/fixtures/metallb_crds.yaml", "tests/peers/metallb_migration/metallb_crds.yaml"];
/// Workloads of MetalLB with FRR-K8s.
const DEPLOYMENT: &str = "controller";
const DAEMON_SETS: [&str; 2] = ["speaker", "frr-k8s"];
const WEBHOOK: &str = "metallb-webhook-configuration";
/// Lists everything that stands in for MetalLB's own programs.
pub(crate) const SHOW: &str =
    "kubectl -n metallb-system get deployments,daemonsets,validatingwebhookconfigurations";
/// Services of MetalLB, which have the names of their pools, and their addresses. MetalLB announces
/// the first one on layer 2, and the second one by BGP.
pub(crate) const LAN: (&str, Ipv4Addr) = ("lan", Ipv4Addr::new(172, 30, 0, 230));
pub(crate) const ROUTED: (&str, Ipv4Addr) = ("routed", Ipv4Addr::new(203, 0, 113, 10));
/// Routers with which all nodes have sessions.
const TORS: [&str; 2] = [ROUTERS[0], ROUTERS[1]];
/// AS numbers of the pages' examples.
const NODE_AS: u32 = 64500;
const ROUTER_AS: u32 = 64512;
const PASSWORD: &str = "secret";
/// Interval of BFD in milliseconds.
const BFD_INTERVAL: u16 = 300;

/// Creates MetalLB's objects and stand-ins, and the Services with the Deployment behind them.
pub(crate) fn start(lab: &Lab) -> Result<()> {
    web::run_deployment(lab)?;
    CRDS.iter().try_for_each(|file| lab.apply_file(&repository().join(file)))?;
    lab.apply_objects(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        frr_configurations(),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": WEBHOOK}, "webhooks": [],
        }),
    ])?;
    create_objects(lab)?;
    lab.apply_objects(&[workload("Deployment", DEPLOYMENT)])?;
    lab.apply_objects(&DAEMON_SETS.map(daemon_set))?;
    serve(lab)?;
    for (service, address) in [LAN, ROUTED] {
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
        let status = status.to_string();
        lab.kubectl(&["patch", "service", service, "--subresource=status", "-p", &status])?;
    }
    Ok(())
}

/// Waits until the stand-ins are ready, and writes the annotation to the Services, like MetalLB's
/// controller.
pub(crate) fn serve(lab: &Lab) -> Result<()> {
    let workloads = DAEMON_SETS.map(|name| format!("daemonset/{name}"));
    for workload in workloads.into_iter().chain([format!("deployment/{DEPLOYMENT}")]) {
        lab.kubectl(&["-n", NAMESPACE, "rollout", "status", &workload, web::ROLLOUT_MAX])?;
    }
    lab.apply_objects(&[LAN, ROUTED].map(|(name, _)| service(name)))
}

/// Waits until FerroLB reports that MetalLB serves the Services.
pub(crate) fn wait_reported(lab: &Lab) -> Result<()> {
    [LAN, ROUTED].iter().try_for_each(|(service, _)| {
        web::wait_reason(lab, service, CONDITION_ADDRESS_ASSIGNED, "ServedByMetalLB").map(drop)
    })
}

/// Waits until the client gets the page of a Service at the address that MetalLB has assigned.
pub(crate) fn wait_served(lab: &Lab, (name, address): (&str, Ipv4Addr)) -> Result<()> {
    let servers = web::wait_pages(lab, name)?;
    ensure!(servers[0].ip() == address, "the Service {name} has the addresses {servers:?}");
    Ok(())
}

/// Creates MetalLB's objects that do not exist.
pub(crate) fn create_objects(lab: &Lab) -> Result<()> {
    lab.apply_objects(&objects())
}

/// Starts FRR with BFD on the hosts that MetalLB's BGPPeers name.
pub(crate) fn start_routers(lab: &Lab) -> Result<Vec<Router<'_>>> {
    let start = |host| {
        let mut peering = Peering::with_nodes(lab, host)?;
        peering.neighbors.retain(|neighbor| neighbor.address.is_ipv4());
        for neighbor in &mut peering.neighbors {
            (neighbor.asn, neighbor.password) = (NODE_AS, Some(PASSWORD.to_owned()));
        }
        let peering = Peering { own_as: ROUTER_AS, bfd: Some(BFD_INTERVAL), ..peering };
        Router::start_with_peering(lab, RouterKind::Frr, host, &peering)
    };
    TORS.into_iter().map(start).collect()
}

/// Waits until the routers have a Service's address through exactly these nodes.
pub(crate) fn wait_routes(routers: &[Router<'_>], address: Ipv4Addr, nodes: &[u8]) -> Result<()> {
    let prefix = format!("{address}/32");
    let expect: BTreeSet<IpAddr> =
        nodes.iter().map(|node| IpAddr::V4(Host::node(*node).v4())).collect();
    wait::until("the routers have the routes", web::PAGE_MAX, || {
        for router in routers {
            let routes = router.routes()?.into_iter().filter(|route| route.prefix == prefix);
            let found: BTreeSet<IpAddr> = routes.filter_map(|route| route.next_hop).collect();
            ensure!(found == expect, "{router} has {prefix} through {found:?}, not {expect:?}");
        }
        Ok(Some(()))
    })
}

/// Returns the node and the name of each pod of MetalLB's DaemonSets.
pub(crate) fn daemons(lab: &Lab) -> Result<BTreeSet<(String, String)>> {
    let selector = format!("component in ({})", DAEMON_SETS.join(","));
    let path = "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{\"\\n\"}{end}";
    let pods = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", &selector, "-o", path])?;
    let pod = |line: &str| {
        let (node, name) = line.split_once(' ').context("a pod has no node")?;
        Ok((node.to_owned(), name.to_owned()))
    };
    pods.lines().map(pod).collect()
}

/// Returns a stand-in for a workload of MetalLB, with the label by which the plan recognizes it.
fn workload(kind: &str, name: &str) -> Value {
    let mut workload = web::stand_in(kind, NAMESPACE, name);
    workload["metadata"]["labels"] = json!({"app": "metallb"});
    workload
}

/// Returns a stand-in for a DaemonSet of MetalLB, which tolerates the control plane's taint.
fn daemon_set(name: &str) -> Value {
    let mut set = workload("DaemonSet", name);
    set["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    set
}

/// Returns objects of each kind that MetalLB has, and the Secret of the BGPPeers.
fn objects() -> Vec<Value> {
    let object = |version: &str, kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": format!("metallb.io/{version}"), "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        })
    };
    let v1beta1 = |kind: &str, name: &str, spec: Value| object("v1beta1", kind, name, spec);
    let pool = |(name, address): (&str, Ipv4Addr)| {
        v1beta1("IPAddressPool", name, json!({"addresses": [format!("{address}/31")]}))
    };
    let communities = json!([{"name": "ours", "value": "64500:100"}]);
    let mut objects = vec![
        pool(LAN),
        pool(ROUTED),
        v1beta1("L2Advertisement", "lan", json!({"ipAddressPools": ["lan"]})),
        v1beta1(
            "BGPAdvertisement",
            "routed",
            json!({"ipAddressPools": ["routed"], "communities": ["ours"]}),
        ),
        v1beta1("BFDProfile", "fast", json!({"detectMultiplier": 3})),
        v1beta1("Community", "names", json!({"communities": communities})),
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
            "metadata": {"name": "tor", "namespace": NAMESPACE}, "stringData": {"password": PASSWORD},
        }),
    ];
    objects.extend(peers().map(|(name, spec)| object("v1beta2", "BGPPeer", name, spec)));
    objects
}

/// Returns the BGPPeers of MetalLB: one without `nodeSelectors`, one with them, and one that
/// selects no node.
fn peers() -> [(&'static str, Value); 3] {
    let peer = |host: &str, more: [(&str, Value); 2]| {
        let address = hosts().into_iter().find(|it| it.name == host).map(|it| it.v4());
        let mut spec = json!({
            "myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address, "holdTime": "3s",
            "connectTime": "1s", "passwordSecret": {"name": "tor"},
        });
        more.into_iter().for_each(|(field, value)| spec[field] = value);
        spec
    };
    let nodes = |labels: Value| ("nodeSelectors", json!([{"matchLabels": labels}]));
    let bfd = || ("bfdProfile", json!("fast"));
    [
        ("tor1", peer(TORS[0], [bfd(), ("keepaliveTime", json!("1s"))])),
        ("tor2", peer(TORS[1], [bfd(), nodes(json!({"kubernetes.io/os": "linux"}))])),
        ("wan", peer(ROUTERS[2], [("ebgpMultiHop", json!(true)), nodes(json!({"wan": "true"}))])),
    ]
}

/// Returns the CustomResourceDefinition of FRR-K8s that the page checks for.
fn frr_configurations() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "frrconfigurations.frrk8s.metallb.io",
        },
        "spec": {
            "group": "frrk8s.metallb.io", "scope": "Namespaced",
            "names": {"kind": "FRRConfiguration", "plural": "frrconfigurations"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": schema}],
        },
    })
}

/// Returns a Service that MetalLB serves from the pool of the same name.
fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "annotations": {"metallb.io/ip-allocated-from-pool": name}},
        "spec": {
            "type": "LoadBalancer", "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    })
}

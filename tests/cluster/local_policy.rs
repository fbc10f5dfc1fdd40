//! `externalTrafficPolicy: Local` under load: pods are replaced, the last pod of the owner fails,
//! and the policy changes in place. Also the client address that a pod sees.

use crate::node_failure::{PROBE_STEP, forwards_to};
use crate::scenario::{run_scenario, step};
use crate::services::{self, WEB};
use crate::under_load::{stays, wait_moved, without_loss};
use crate::{pools, segment};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Time of probes that show that an address does not move.
const SETTLED: Duration = Duration::from_secs(1);

/// Number of moves whose loss is allowed. The old node's kube-proxy learns of the change when its
/// speaker does, and drops new connections until the address has moved.
const RACE: usize = 3;

#[test]
fn with_policy_local_the_address_follows_the_pods_and_the_client_loses_nothing() {
    run_scenario(&Options::named("localpolicy"), |lab| {
        lab.start_ferrolb()?;
        lab.apply_objects(&[
            pools::pool("lan", &["172.30.0.200-172.30.0.209"]),
            pools::advertisement(),
        ])?;
        for node in lab.nodes() {
            lab.pod(&pod(&node), &node, &WEB)?;
        }
        let local = json!({"externalTrafficPolicy": "Local"});
        lab.apply_objects(&[
            services::service("web", local),
            services::service("cluster", json!({})),
        ])?;
        let address = services::address(lab, "web")?;
        step("each node forwards to its own pod", || {
            lab.nodes().iter().try_for_each(|node| forwards(lab, node, &pod(node)))
        })?;
        step(
            "the pod sees the client's own address with policy Local, and not with Cluster",
            || check_client_address(lab, address),
        )?;
        let owner = check_replaced_pods(lab, address)?;
        check_moves(lab, address, &owner)?;
        step(
            "all pods terminate: with usable: ready no node may announce, and without it one that serves on does",
            || all_terminate(lab, address),
        )
    });
}

/// Steps in which pods are replaced in different ways. Returns the owner after them.
fn check_replaced_pods(lab: &Lab, address: Ipv4Addr) -> Result<String> {
    let owner = segment::wait_owner(lab, address)?;
    step("pods are replaced one after another, and nothing moves", || {
        without_loss(
            lab,
            address,
            ("Local, rolling replacement of the pods of three nodes", 0),
            || replace_all(lab),
        )?;
        stays(lab, address, &owner, SETTLED)
    })?;
    step(
        "an owner whose only pod terminates and serves on hands the address to one that is ready",
        || {
            without_loss(
                lab,
                address,
                ("Local, the pods of three nodes end and are made anew", 3),
                || renew_all(lab, address),
            )
        },
    )?;
    step(
        "with usable: ready a pod that terminates counts no more: each hands its address over",
        || {
            set_endpoint_condition(lab, json!("ready"))?;
            without_loss(
                lab,
                address,
                ("Local, usable: ready, the pods of three nodes end and are made anew", 3),
                || renew_all(lab, address),
            )?;
            segment::wait_owner(lab, address)
        },
    )
}

/// Steps in which the owner's last pod is not ready, and in which the policy changes.
fn check_moves(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<()> {
    let second = step("the owner's last pod is ready no more, and the address moves", || {
        let gone =
            || lab.set_ready(&newer(owner), false).and_then(|()| wait_moved(lab, address, owner));
        without_loss(lab, address, ("Local, last pod of the owner is NotReady", RACE), gone)
    })?;
    step(
        "the policy is changed to Cluster and back while the holder has a pod, and nothing moves",
        || {
            for to in ["Cluster", "Local"] {
                without_loss(
                    lab,
                    address,
                    (&format!("policy changed to {to}, a pod on the holder"), 0),
                    || {
                        policy(lab, to)?;
                        stays(lab, address, &second, SETTLED)
                    },
                )?;
            }
            Ok(())
        },
    )?;
    step("it is changed to Local while the holder has none, and the address moves", || {
        moved_by_policy(lab, address, &second)
    })
}

/// Returns the name of a node's first pod. [`newer`] names its replacement.
fn pod(node: &str) -> String {
    format!("old{node}")
}

fn newer(node: &str) -> String {
    format!("new{node}")
}

/// Waits until a node forwards connections to its own node port to this pod alone.
fn forwards(lab: &Lab, node: &str, pod: &str) -> Result<()> {
    let service = services::get(lab, "web")?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = ports
        .first()
        .and_then(|port| u16::try_from(port.node_port?).ok())
        .context("a node port")?;
    let host = Host::named(node).context("a node")?;
    forwards_to(lab, node, SocketAddr::new(host.v4().into(), port), pod)
}

fn check_client_address(lab: &Lab, local: Ipv4Addr) -> Result<()> {
    let client = Host::client().v4().to_string();
    for (address, expect) in [(local, true), (services::address(lab, "cluster")?, false)] {
        let page = wait::until("the page", pools::STATE_MAX, || {
            let page = lab.http_get(CLIENT, services::http(address), "/")?;
            Ok((page.status == 200).then_some(page))
        })?;
        let seen = page.body.split_whitespace().nth(1).context("a client")?;
        ensure!(
            (seen == client) == expect,
            "at {address} the pod saw {seen}; the client is {client}"
        );
    }
    Ok(())
}

/// Replaces pods as a Deployment does: the new pod is ready, the old one terminates, serves on, and
/// is deleted.
fn replace_all(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        lab.pod(&newer(node), node, &WEB)?;
        lab.terminate(&pod(node))?;
        forwards(lab, node, &newer(node))?;
        lab.remove_pod(&pod(node))
    })
}

fn set_endpoint_condition(lab: &Lab, value: Value) -> Result<()> {
    services::patch(
        lab,
        "web",
        &json!({"metadata": {"annotations": {"ferrolb.io/endpoint-condition": value}}}),
    )
}

/// Replaces pods as a DaemonSet does: the old pod of a node terminates, serves on while it receives
/// traffic, and is deleted before the new one exists.
fn renew_all(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        let (pod, owner) = (newer(node), segment::wait_owner(lab, address)?);
        lab.terminate(&pod)?;
        if owner == *node {
            wait_moved(lab, address, node)?;
        }
        lab.remove_pod(&pod)?;
        lab.pod(&pod, node, &WEB)?;
        forwards(lab, node, &pod)
    })
}

/// Terminates all pods while they still serve. With `ready` no node is eligible, and without the
/// annotation a terminating pod counts.
fn all_terminate(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    set_endpoint_condition(lab, json!("ready"))?;
    lab.nodes().iter().try_for_each(|node| lab.terminate(&newer(node)))?;
    services::wait_announced(lab, "web", "NoEndpoints", "no endpoint")?;
    segment::wait_unannounced(lab, address)?;
    set_endpoint_condition(lab, Value::Null)?;
    let owner = segment::wait_owner(lab, address)?;
    forwards(lab, &owner, &newer(&owner))
}

fn policy(lab: &Lab, to: &str) -> Result<()> {
    services::patch(lab, "web", &json!({"spec": {"externalTrafficPolicy": to}}))
}

/// Makes the owner's own pod unready under policy Cluster, which loses nothing. With Local the
/// owner then has no pod, and the address moves.
fn moved_by_policy(lab: &Lab, address: Ipv4Addr, holder: &str) -> Result<()> {
    policy(lab, "Cluster")?;
    lab.nodes().iter().try_for_each(|node| lab.set_ready(&newer(node), node != holder))?;
    wait::until("the pod of the holder gets nothing", pools::STATE_MAX, || {
        let report = lab.start_probe(services::http(address), SETTLED, PROBE_STEP).finish()?;
        Ok((report.lost == 0 && !report.pods.contains_key(&newer(holder))).then_some(()))
    })?;
    stays(lab, address, holder, SETTLED)?;
    without_loss(lab, address, ("policy changed to Local, no pod on the holder", RACE), || {
        policy(lab, "Local")?;
        wait_moved(lab, address, holder).map(drop)
    })
}

//! `externalTrafficPolicy: Local` under load: pods are replaced, the last pod of the owner becomes
//! unready, and the policy changes. The test also checks which client address a pod sees.

use crate::node_failure::{PROBE_INTERVAL, wait_forwards_to};
use crate::scenario::{run_scenario, step};
use crate::services::{self, WEB};
use crate::under_load::{check_owner_stays, run_without_loss, wait_moved};
use crate::{pools, segment};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::{CLIENT, Host};
use ferrolb_lab::{Lab, Options, wait};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Time for which an address must stay with its owner.
const SETTLED: Duration = Duration::from_secs(1);

/// Number of moves that the test passes to [`run_without_loss`] for one move, so that more losses
/// are allowed. The old owner's kube-proxy receives the change at the same time as its speaker, and
/// drops new connections until the address has moved.
const MOVES_WITH_LOSS: usize = 3;

#[test]
fn with_policy_local_the_address_follows_the_pods_without_loss() {
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
        step("each node forwards to its own pod only", || {
            lab.nodes().iter().try_for_each(|node| wait_forwards_to_pod(lab, node, &pod(node)))
        })?;
        step(
            "a pod sees the client's address with policy Local, and not with policy Cluster",
            || check_client_address(lab, address),
        )?;
        let owner = check_replaced_pods(lab, address)?;
        check_moves(lab, address, &owner)?;
        step(
            "all pods terminate: with endpoint-condition ready no node announces, and without it one does",
            || terminate_all(lab, address),
        )
    });
}

/// Runs the steps that replace pods in different ways. Returns the final owner.
fn check_replaced_pods(lab: &Lab, address: Ipv4Addr) -> Result<String> {
    let owner = segment::wait_owner(lab, address)?;
    step("pods are replaced one after another, and the address stays", || {
        run_without_loss(
            lab,
            address,
            ("policy Local, rolling replacement of the pods of three nodes", 0),
            || replace_all(lab),
        )?;
        check_owner_stays(lab, address, &owner, SETTLED)
    })?;
    step(
        "an owner whose only pod terminates hands the address over to a node with a ready pod",
        || {
            run_without_loss(
                lab,
                address,
                ("policy Local, the pods of three nodes terminate and are created again", 3),
                || recreate_all(lab, address),
            )
        },
    )?;
    step(
        "with endpoint-condition ready, an owner whose pod terminates hands the address over",
        || {
            set_endpoint_condition(lab, json!("ready"))?;
            run_without_loss(
                lab,
                address,
                (
                    "policy Local, endpoint-condition ready, the pods of three nodes terminate and are created again",
                    3,
                ),
                || recreate_all(lab, address),
            )?;
            segment::wait_owner(lab, address)
        },
    )
}

/// Runs the steps in which the owner's last pod becomes unready, and in which the policy changes.
fn check_moves(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<()> {
    let second = step("the owner's last pod becomes unready, and the address moves", || {
        let set_unready = || {
            lab.set_ready(&replacement_pod(owner), false)
                .and_then(|()| wait_moved(lab, address, owner))
        };
        run_without_loss(
            lab,
            address,
            ("policy Local, the owner's last pod becomes unready", MOVES_WITH_LOSS),
            set_unready,
        )
    })?;
    step(
        "the policy changes to Cluster and back while the owner has a pod, and the address stays",
        || {
            for to in ["Cluster", "Local"] {
                run_without_loss(
                    lab,
                    address,
                    (&format!("policy changed to {to}, a pod on the owner"), 0),
                    || {
                        set_policy(lab, to)?;
                        check_owner_stays(lab, address, &second, SETTLED)
                    },
                )?;
            }
            Ok(())
        },
    )?;
    step(
        "the policy changes to Local while the owner has no ready pod, and the address moves",
        || move_by_policy(lab, address, &second),
    )
}

/// Returns the name of a node's first pod.
fn pod(node: &str) -> String {
    format!("old{node}")
}

/// Returns the name of the pod that replaces a node's first pod.
fn replacement_pod(node: &str) -> String {
    format!("new{node}")
}

/// Waits until a node forwards connections to its own node port to this pod alone.
fn wait_forwards_to_pod(lab: &Lab, node: &str, pod: &str) -> Result<()> {
    let service = services::get(lab, "web")?;
    let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = ports
        .first()
        .and_then(|port| u16::try_from(port.node_port?).ok())
        .context("the Service has no node port")?;
    let host = Host::named(node).context("the node is not a host of the lab")?;
    wait_forwards_to(lab, node, SocketAddr::new(host.v4().into(), port), pod)
}

fn check_client_address(lab: &Lab, local: Ipv4Addr) -> Result<()> {
    let client = Host::client().v4().to_string();
    for (address, expect) in [(local, true), (services::address(lab, "cluster")?, false)] {
        let page = wait::until("the client gets the page", pools::STATE_MAX, || {
            let page = lab.http_get(CLIENT, services::http(address), "/")?;
            Ok((page.status == 200).then_some(page))
        })?;
        let seen =
            page.body.split_whitespace().nth(1).context("the page names no client address")?;
        ensure!(
            (seen == client) == expect,
            "at {address} the pod saw {seen}; the client is {client}"
        );
    }
    Ok(())
}

/// Replaces pods as a Deployment does: the new pod becomes ready, and the old one terminates, still
/// serves, and is deleted.
fn replace_all(lab: &Lab) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        lab.pod(&replacement_pod(node), node, &WEB)?;
        lab.terminate(&pod(node))?;
        wait_forwards_to_pod(lab, node, &replacement_pod(node))?;
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

/// Replaces pods as a DaemonSet does: the old pod of a node terminates, still serves while it
/// receives traffic, and is deleted before the new one exists.
fn recreate_all(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| {
        let (pod, owner) = (replacement_pod(node), segment::wait_owner(lab, address)?);
        lab.terminate(&pod)?;
        if owner == *node {
            wait_moved(lab, address, node)?;
        }
        lab.remove_pod(&pod)?;
        lab.pod(&pod, node, &WEB)?;
        wait_forwards_to_pod(lab, node, &pod)
    })
}

/// Terminates all pods while they still serve. With the endpoint condition `ready`, no endpoint is
/// eligible, and without the annotation a terminating endpoint is.
fn terminate_all(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    set_endpoint_condition(lab, json!("ready"))?;
    lab.nodes().iter().try_for_each(|node| lab.terminate(&replacement_pod(node)))?;
    services::wait_announced(lab, "web", "NoEndpoints", "no endpoint")?;
    segment::wait_unannounced(lab, address)?;
    set_endpoint_condition(lab, Value::Null)?;
    let owner = segment::wait_owner(lab, address)?;
    wait_forwards_to_pod(lab, &owner, &replacement_pod(&owner))
}

fn set_policy(lab: &Lab, to: &str) -> Result<()> {
    services::patch(lab, "web", &json!({"spec": {"externalTrafficPolicy": to}}))
}

/// Makes the owner's own pod unready under policy Cluster, which moves no address. With policy
/// Local the owner then has no eligible endpoint, and the address moves.
fn move_by_policy(lab: &Lab, address: Ipv4Addr, owner: &str) -> Result<()> {
    set_policy(lab, "Cluster")?;
    lab.nodes().iter().try_for_each(|node| lab.set_ready(&replacement_pod(node), node != owner))?;
    wait::until("the owner's pod gets no connection", pools::STATE_MAX, || {
        let report = lab.start_probe(services::http(address), SETTLED, PROBE_INTERVAL).finish()?;
        Ok((report.lost == 0 && !report.pods.contains_key(&replacement_pod(owner))).then_some(()))
    })?;
    check_owner_stays(lab, address, owner, SETTLED)?;
    run_without_loss(
        lab,
        address,
        ("policy changed to Local, no ready pod on the owner", MOVES_WITH_LOSS),
        || {
            set_policy(lab, "Local")?;
            wait_moved(lab, address, owner).map(drop)
        },
    )
}

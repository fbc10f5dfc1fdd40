//! `kubectl ferrolb migrate metallb --own-group` on a cluster with MetalLB's CRDs and objects: the
//! test executes the printed steps while a client connects. The test acts as MetalLB: it has
//! written the addresses, and the kernel of a node replies for each of them until the step that
//! stops MetalLB's speakers.

use crate::scenario::{print_measured, run_scenario, step};
use crate::segment::{self, SegmentSocket};
use crate::services::{self, ADDRESS_ASSIGNED, WEB, service};
use crate::under_load::{check_owner_stays, run_without_loss};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, Options, wait};
use ferrolb_proto::election::order;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

/// MetalLB's API group, and the namespace in its manual.
const GROUP: &str = "metallb.io";
const NAMESPACE: &str = "metallb-system";
/// MetalLB's CRDs: those for BGP, and the others.
const CRDS: [&str; 2] = [
    include_str!("../peers/metallb_migration/metallb_crds.yaml"),
    include_str!("fixtures/metallb_crds.yaml"),
];
/// Annotation that MetalLB sets on a Service with an address.
const ASSIGNED_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";
/// Services with the addresses that MetalLB has assigned: not the first ones of the pool, and with
/// different owners.
const SERVICES: [(&str, Ipv4Addr); 2] =
    [("web", Ipv4Addr::new(172, 30, 0, 205)), ("shop", Ipv4Addr::new(172, 30, 0, 206))];
/// Time for which an address must stay.
const SETTLED: Duration = Duration::from_secs(3);
/// Maximum time from the end of MetalLB's speakers until a node of FerroLB has replied for all
/// addresses: three times the 160 ms of a node failure. FerroLB announces them already.
const REPLIED_MAX: Duration = Duration::from_millis(480);
/// Maximum time until a client gets the first page.
const FIRST_PAGE_MAX: Duration = Duration::from_secs(9);

#[test]
fn the_steps_of_a_migration_from_metallb_change_no_address() {
    run_scenario(&Options::named("migrate"), |lab| {
        lab.start_ferrolb()?;
        step("MetalLB's objects exist, and its Services have addresses", || set_up(lab))?;
        let directory = lab.state().file("migration").display().to_string();
        let plan =
            step("the plan keeps all addresses, and compares both ways", || plan(lab, &directory))?;
        step("the steps before the switch change nothing", || {
            for id in ["save", "copy", "default"] {
                execute(lab, &plan, id, |_| Ok(()))?;
            }
            SERVICES.iter().try_for_each(|(name, _)| wait_served_by_metallb(lab, name))
        })?;
        let (_, address) = SERVICES[0];
        let owner = metallb_owner(lab, address)?;
        run_without_loss(lab, address, ("migration from MetalLB", 0), || {
            step("FerroLB announces the addresses before MetalLB's speakers end", || {
                execute(lab, &plan, "switch", |_| Ok(()))?;
                SERVICES.iter().try_for_each(|(name, address)| {
                    services::wait_announced(lab, name, "Announced", &address.to_string()).map(drop)
                })
            })?;
            step("MetalLB's speakers end, and the addresses stay on their nodes", || {
                stop_speakers(lab, &plan)?;
                check_owner_stays(lab, address, &owner, SETTLED)
            })
        })?;
        step("all Services have their addresses, each with one owner", || {
            for (name, address) in SERVICES {
                services::wait_announced(lab, name, "Announced", &address.to_string())?;
                services::wait_addresses(lab, name, &[&address.to_string()])?;
                let (owner, former) =
                    (segment::wait_owner(lab, address)?, metallb_owner(lab, address)?);
                ensure!(owner == former, "{address} moved from {former} to {owner}");
            }
            execute(lab, &plan, "verify", |_| Ok(()))
        })
    });
}

/// Creates MetalLB's CRDs, one object of each kind, its workloads, and Services with its addresses.
fn set_up(lab: &Lab) -> Result<()> {
    CRDS.into_iter().try_for_each(|crds| lab.apply(crds))?;
    lab.pod("web", "node3", &WEB)?;
    let object = |version: &str, kind: &str, spec: Value| {
        json!({"apiVersion": format!("{GROUP}/{version}"), "kind": kind,
            "metadata": {"name": "lan", "namespace": NAMESPACE}, "spec": spec})
    };
    let workload = |kind: &str, name: &str| {
        let container = json!({"name": name, "image": format!("quay.io/metallb/{name}:v0.16.1")});
        json!({"apiVersion": "apps/v1", "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
                "metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}})
    };
    let aliases = json!([{"name": "vpn-only", "value": "1234:1"}]);
    let peer = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "172.30.0.250"});
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        workload("Deployment", "controller"),
        workload("DaemonSet", "speaker"),
        object("v1beta1", "IPAddressPool", json!({"addresses": ["172.30.0.200-172.30.0.209"]})),
        object("v1beta1", "L2Advertisement", json!({"ipAddressPools": ["lan"]})),
        object("v1beta1", "BFDProfile", json!({"receiveInterval": 300})),
        object("v1beta1", "Community", json!({"communities": aliases})),
        object("v1beta1", "BGPAdvertisement", json!({"communities": ["vpn-only"]})),
        object("v1beta2", "BGPPeer", peer),
    ];
    objects.extend(SERVICES.map(|(name, _)| {
        let mut object = service(name, json!({}));
        object["metadata"]["annotations"] = json!({ASSIGNED_ANNOTATION: "lan"});
        object
    }));
    lab.apply_objects(&objects)?;
    for (name, address) in SERVICES {
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
        services::patch_status(lab, name, &status)?;
        let text = format!("{address}/32");
        let owner = metallb_owner(lab, address)?;
        lab.exec(&owner, &["ip", "address", "add", &text, "dev", "eth0"])?;
        wait_served_by_metallb(lab, name)?;
        wait::until("the client gets the page", FIRST_PAGE_MAX, || {
            lab.http_get(CLIENT, services::http(address), "/").map(Some)
        })?;
    }
    Ok(())
}

/// Returns the node that announces an address of MetalLB: the first one in the order that FerroLB
/// has, too.
fn metallb_owner(lab: &Lab, address: Ipv4Addr) -> Result<String> {
    let nodes = lab.nodes().into_iter();
    nodes.min_by_key(|node| order(node, &address.to_string())).context("the lab has no node")
}

fn wait_served_by_metallb(lab: &Lab, name: &str) -> Result<()> {
    services::wait_for(lab, name, "ServedByMetalLB", |service| {
        let condition = services::condition(service, ADDRESS_ASSIGNED)?;
        let is_annotated = service.annotations().contains_key(ASSIGNED_ANNOTATION);
        (condition.reason == "ServedByMetalLB" && is_annotated).then_some(())
    })
}

/// Writes the objects into `directory`, and returns the plan. The command fails if an address would
/// change.
fn plan(lab: &Lab, directory: &str) -> Result<Value> {
    let text = lab.shell("kubectl ferrolb migrate metallb")?;
    let expected =
        format!("Services with the same addresses: {}; with other ones or none: 0", SERVICES.len());
    ensure!(text.matches(&expected).count() == 2, "not both ways keep the addresses:\n{text}");
    let command = format!("kubectl ferrolb migrate metallb --own-group --to {directory} -o json");
    let plan: Value = serde_json::from_str(&lab.shell(&command)?)?;
    ensure!(plan["problems"] == json!([]), "the plan has problems: {:#}", plan["problems"]);
    let second = lab.shell(&format!("{command} && echo 0 || echo $?"))?;
    ensure!(second.trim() == "2", "existing files are overwritten: {second}");
    Ok(plan)
}

/// Executes the checks and the commands of a step, and passes each executed command to `after`.
/// Helm's commands are not for the lab, which runs FerroLB without Helm.
fn execute(
    lab: &Lab,
    plan: &Value,
    id: &str,
    mut after: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut steps = plan["steps"].as_array().into_iter().flatten();
    let step = steps.find(|step| step["id"] == id).with_context(|| format!("no step {id}"))?;
    let checks = step["checks"].as_array().into_iter().flatten().map(|check| &check["command"]);
    let commands = checks.chain(step["commands"].as_array().into_iter().flatten());
    for command in commands.filter_map(Value::as_str).filter(|it| !it.starts_with("helm ")) {
        lab.shell(command).with_context(|| format!("step {id}"))?;
        after(command)?;
    }
    Ok(())
}

/// Executes the step that stops MetalLB's speakers. They end when their DaemonSet selects no node.
/// Checks how long it takes until a node replies for each address.
fn stop_speakers(lab: &Lab, plan: &Value) -> Result<()> {
    let mut replied: Option<Duration> = None;
    execute(lab, plan, "stop", |command| {
        if command.contains(" patch daemonset/") {
            for (_, address) in SERVICES {
                let text = format!("{address}/32");
                let owner = metallb_owner(lab, address)?;
                lab.exec(&owner, &["ip", "address", "delete", &text, "dev", "eth0"])?;
            }
            let mut socket = SegmentSocket::open(lab)?;
            let stopped = wait::now();
            for (_, address) in SERVICES {
                socket.wait_reply(address)?;
            }
            replied = Some(stopped.elapsed());
        }
        Ok(())
    })?;
    let gap = replied.context("no command stops MetalLB's speakers")?;
    print_measured(&format!(
        "migration from MetalLB: FerroLB replied for all addresses after {gap:?}"
    ));
    ensure!(gap < REPLIED_MAX, "FerroLB replied for all addresses only after {gap:?}");
    Ok(())
}

//! Part of the scenario of the pages: FerroLB beside other load balancers, and on clusters that
//! resemble k3s and minikube. Programs of the test stand in for ServiceLB, `minikube tunnel` and
//! MetalLB 0.9.6. The commands are those of docs/platforms.md.

use crate::client::{LOST_MAX, PROBE_INTERVAL, PROBE_TIME_MAX};
use crate::stand_ins::{METALLB_COUNT, METALLB_FIRST, beside, metallb_096, service_lb, tunnel};
use crate::{uninstall, web};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::scenario::{print_measured, step};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::{
    CONDITION_ADDRESS_ASSIGNED as ASSIGNED, CONDITION_ANNOUNCED as ANNOUNCED, LOAD_BALANCER_CLASS,
};
use ferrolb_tests::run::Runner;
use ferrolb_tests::{Block, Page, Topology, read_page};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const PAGE: &str = "docs/platforms.md";
/// Parts of the blocks of the trial beside ServiceLB, and of the adoption of its Services.
const TRIAL: [&str; 3] =
    ["install-beside-metallb.yaml", "name: trial", "kubectl get service trial"];
const ADOPTION: &str = "ferrolb.io/adopt=true";
/// Page and part of the block with a pool and an advertisement.
const POOL: (&str, &str) = ("docs/install/manifests.md", "kind: IPAddressPool");
/// Service of another load balancer.
const OTHER: &str = "other";
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Time for which `minikube tunnel` runs, in which it patches each Service three times.
const TUNNEL_TIME: Duration = Duration::from_secs(13);
/// Three times the 30 s within which the reason `StatusContested` must disappear.
const CLEARED_MAX: Duration = Duration::from_secs(90);
/// Time for which the client connects to a node after the end of ServiceLB.
const BEFORE_ADOPTION: Duration = Duration::from_secs(2);

/// Returns the blocks of a page that this part runs.
pub(crate) fn blocks(page: &Page) -> Result<Vec<&Block>> {
    if page.path != PAGE {
        return Ok(Vec::new());
    }
    let parts = TRIAL.iter().chain([&ADOPTION]);
    parts.map(|part| page.block_with(Topology::Kubeadm, part)).collect()
}

/// Runs the part on a cluster without FerroLB that has the Deployment `web`, and whose kube-proxies
/// serve their health at loopback. Leaves no FerroLB.
pub(crate) fn part(lab: &Lab, runner: &Runner<'_>) -> Result<()> {
    step("no node has the exclude label, as in k3s", || label(lab, "-"))?;
    let ((), writes) = beside(lab, service_lb, || {
        expose(lab, OTHER)?;
        let nodes = step("ServiceLB serves a Service", || wait_count(lab, OTHER, 3))?;
        let install = step("the plan installs FerroLB by its manifests", || plan(lab))?;
        step("FerroLB serves only its class: the trial", || trial(lab, runner))?;
        step("FerroLB is installed for all Services, and ServiceLB keeps its own", || {
            install.iter().try_for_each(|command| lab.shell(command).map(drop))?;
            check_left(lab, "k3s", &nodes)
        })
    })?;
    print_measured(&format!("ServiceLB: {writes} writes"));
    ensure!(writes > 1, "ServiceLB has not cleared the status of the trial");
    step("ServiceLB is replaced", || replace(lab, runner))?;
    step("minikube tunnel runs and ends", || run_tunnel(lab))?;
    step("MetalLB 0.9.6 runs and ends", || run_metallb(lab))?;
    step("all nodes have the exclude label, and none", || label_nodes(lab))?;
    lab.kubectl(&["delete", "service", OTHER])?;
    uninstall::remove(lab, uninstall::BY_FILE)
}

/// Runs the first block of a page with this part.
fn run(runner: &Runner<'_>, path: &str, part: &str) -> Result<()> {
    let page = read_page(path)?;
    runner.block(&page, page.block_with(Topology::Kubeadm, part)?)
}

/// Returns the commands with which the plan of a migration from ServiceLB installs FerroLB.
fn plan(lab: &Lab) -> Result<Vec<String>> {
    // All addresses change, so the exit code is 1.
    let plan = lab.shell("kubectl ferrolb migrate servicelb --plan -o json || test $? = 1")?;
    let plan: Value = serde_json::from_str(&plan)?;
    let mut steps = plan["steps"].as_array().into_iter().flatten();
    let install = steps.find(|it| it["id"] == "install").context("the plan has no such step")?;
    let commands = install["commands"].as_array().into_iter().flatten();
    let commands: Vec<_> = commands.filter_map(Value::as_str).map(str::to_owned).collect();
    let is_piped = commands.iter().any(|it| it.contains("--dry-run | kubectl apply -f -"));
    ensure!(is_piped, "the commands are {commands:?}");
    Ok(commands)
}

/// Changes the exclude label of all nodes: `=` sets it, `-` removes it.
fn label(lab: &Lab, change: &str) -> Result<()> {
    let label = format!("{EXCLUDE_LABEL}{change}");
    lab.kubectl(&["label", "nodes", "--all", "--overwrite", &label]).map(drop)
}

/// Creates a Service without a class, which any load balancer may serve.
fn expose(lab: &Lab, name: &str) -> Result<()> {
    web::expose(lab, "web", name)
}

/// Runs the trial of the page, and replaces the pods of the Service while a client connects.
fn trial(lab: &Lab, runner: &Runner<'_>) -> Result<()> {
    run(runner, PAGE, TRIAL[0])?;
    run(runner, POOL.0, POOL.1)?;
    run(runner, PAGE, TRIAL[1])?;
    run(runner, PAGE, TRIAL[2])?;
    wait::until("every speaker reports that kube-proxy is healthy", web::PAGE_MAX, || {
        let path = "jsonpath={.items[*].status.dataPath.state}";
        let states = lab.kubectl(&["-n", "ferrolb-system", "get", "fspeaker", "-o", path])?;
        ensure!(states == "Healthy Healthy Healthy", "the states are {states:?}");
        Ok(Some(()))
    })?;
    let server = web::wait_pages(lab, "trial")?[0];
    probe(lab, server, "pods replaced beside ServiceLB, which clears the status", || {
        lab.kubectl(&["rollout", "restart", "deployment/web"])?;
        lab.kubectl(&["rollout", "status", "deployment/web", web::ROLLOUT_MAX])?;
        wait_same(lab, "trial", server)
    })?;
    lab.kubectl(&["delete", "service", "trial"]).map(drop)
}

/// Runs `event` while a client connects to a server. Prints and returns how many connections are
/// lost.
fn probe(
    lab: &Lab,
    server: SocketAddr,
    name: &str,
    event: impl FnOnce() -> Result<()>,
) -> Result<usize> {
    let (probing, start) = (lab.start_probe(server, PROBE_TIME_MAX, PROBE_INTERVAL), wait::now());
    let result = event();
    let report = probing.stop()?;
    print_measured(&format!(
        "{name}: {} of {} connections lost in {:.1} s, longest gap {:.0} ms",
        report.lost,
        report.sent,
        start.elapsed().as_secs_f64(),
        report.longest_gap_ms
    ));
    result.map(|()| report.lost)
}

/// Checks that a Service of another load balancer keeps its addresses, and that its condition names
/// the field manager.
fn check_left(lab: &Lab, manager: &str, addresses: &[SocketAddr]) -> Result<()> {
    let message = web::wait_reason(lab, OTHER, ASSIGNED, "ServedByOther")?;
    ensure!(message.contains(&format!("field manager {manager:?}")), "the message is {message:?}");
    let now = web::addresses(lab, OTHER)?;
    ensure!(now == addresses, "the Service has {now:?} instead of {addresses:?}");
    Ok(())
}

/// Waits until a Service has this number of addresses.
fn wait_count(lab: &Lab, service: &str, count: usize) -> Result<Vec<SocketAddr>> {
    wait::until(&format!("{service} has {count} addresses"), web::PAGE_MAX, || {
        let found = web::addresses(lab, service)?;
        ensure!(found.len() == count, "the Service has {found:?}");
        Ok(Some(found))
    })
}

/// Waits until a Service has exactly this address again, and a node announces it.
fn wait_same(lab: &Lab, service: &str, server: SocketAddr) -> Result<()> {
    wait::until(&format!("{service} has {}", server.ip()), web::PAGE_MAX, || {
        let found = web::addresses(lab, service)?;
        ensure!(found == [server], "the Service has {found:?}");
        Ok(lab.owner_of(server.ip())?.map(drop))
    })
}

/// Checks that the Service of ServiceLB works without ServiceLB until it is adopted, and at its new
/// address afterwards.
fn replace(lab: &Lab, runner: &Runner<'_>) -> Result<()> {
    let nodes = web::wait_pages(lab, OTHER)?;
    let lost = probe(lab, nodes[0], "address of a node, until the Service is adopted", || {
        wait::during(BEFORE_ADOPTION, || Ok(()))?;
        check_left(lab, "k3s", &nodes)
    })?;
    ensure!(lost <= LOST_MAX, "the address of a node lost {lost} connections");
    let start = wait::now();
    run(runner, PAGE, ADOPTION)?;
    web::wait_reason(lab, OTHER, ANNOUNCED, "Announced")?;
    let servers = web::wait_pages(lab, OTHER)?;
    let after = start.elapsed().as_secs_f64();
    print_measured(&format!("adopted: a page at {servers:?} after {after:.1} s"));
    ensure!(servers.iter().all(|it| !nodes.contains(it)), "the Service still has {servers:?}");
    Ok(())
}

/// Runs `minikube tunnel` until it has patched the Service three times, and checks that the Service
/// has its address after the end.
fn run_tunnel(lab: &Lab) -> Result<()> {
    let server = web::wait_pages(lab, OTHER)?[0];
    probe(lab, server, "minikube tunnel", || {
        let (message, writes) = beside(lab, tunnel, || {
            wait::during(TUNNEL_TIME, || Ok(()))?;
            web::wait_reason(lab, OTHER, ASSIGNED, "StatusContested")
        })?;
        ensure!(message.contains("(minikube tunnel)"), "the message is {message:?}");
        let start = wait::now();
        wait_same(lab, OTHER, server)?;
        web::wait_pages(lab, OTHER)?;
        print_measured(&format!(
            "minikube tunnel: {writes} writes; {server} is back {:.1} s after the end",
            start.elapsed().as_secs_f64()
        ));
        web::wait_reason(lab, OTHER, ASSIGNED, "Assigned")?;
        let after = start.elapsed();
        print_measured(&format!(
            "minikube tunnel: StatusContested clears {after:.1?} after the end"
        ));
        ensure!(after < CLEARED_MAX, "StatusContested clears after {after:?}");
        Ok(())
    })
    .map(drop)
}

/// Runs MetalLB 0.9.6 beside FerroLB. A Service that MetalLB served first stays with MetalLB, and
/// FerroLB serves it at the same address as soon as a pool contains it. MetalLB also writes the
/// Services of FerroLB's class.
fn run_metallb(lab: &Lab) -> Result<()> {
    scale_controller(lab, 0)?;
    lab.kubectl(&["delete", "service", OTHER])?;
    let (address, writes) = beside(lab, metallb_096, || {
        expose(lab, OTHER)?;
        let address = wait_count(lab, OTHER, 1)?;
        scale_controller(lab, 2)?;
        check_left(lab, "controller", &address)?;
        ensure!(lab.owner_of(address[0].ip())?.is_none(), "FerroLB announces {address:?}");
        lab.apply_objects(&[json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "both", "namespace": "default"},
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": LOAD_BALANCER_CLASS,
                "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}],
            },
        })])?;
        let message = web::wait_reason(lab, "both", ASSIGNED, "StatusContested")?;
        ensure!(message.contains("(perhaps MetalLB)"), "{message:?}");
        check_left(lab, "controller", &address)?;
        Ok(address[0])
    })?;
    print_measured(&format!("MetalLB 0.9.6: {writes} writes"));
    let both = web::wait_pages(lab, "both")?;
    ensure!(both.iter().all(|it| !is_of_metallb(it.ip())), "the other Service has {both:?}");
    lab.kubectl(&["delete", "service", "both"])?;
    lab.apply_objects(&[json!({
        "apiVersion": "ferrolb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "metallb", "namespace": "ferrolb-system"},
        "spec": {"addresses": [format!("{METALLB_FIRST}/32")]},
    })])?;
    web::wait_reason(lab, OTHER, ANNOUNCED, "Announced")?;
    let now = web::wait_pages(lab, OTHER)?;
    ensure!(now == [address], "the Service has {now:?} instead of {address}");
    Ok(())
}

fn is_of_metallb(address: IpAddr) -> bool {
    let first = u32::from(METALLB_FIRST);
    matches!(address, IpAddr::V4(it) if (first..first + u32::from(METALLB_COUNT)).contains(&it.into()))
}

fn scale_controller(lab: &Lab, replicas: u8) -> Result<()> {
    let count = format!("--replicas={replicas}");
    lab.kubectl(&["-n", "ferrolb-system", "scale", "deployment/controller", &count])?;
    let deployment = ["-n", "ferrolb-system", "rollout", "status", "deployment/controller"];
    lab.kubectl(&[&deployment[..], &[web::ROLLOUT_MAX]].concat())?;
    wait::until("the old pods are gone", web::PAGE_MAX, || {
        let label = "app.kubernetes.io/component=controller";
        let pods =
            lab.kubectl(&["-n", "ferrolb-system", "get", "pods", "-l", label, "-o", "name"])?;
        Ok((pods.lines().count() == usize::from(replicas)).then_some(()))
    })
}

/// Checks that an exclude label on all nodes is ignored, and that without any such label the
/// control plane announces, too.
fn label_nodes(lab: &Lab) -> Result<()> {
    let server = web::wait_pages(lab, OTHER)?[0];
    let lost = probe(lab, server, "all nodes get the exclude label, and lose it", || {
        label(lab, "=")?;
        wait::until("the condition reports the label", web::PAGE_MAX, || {
            let message = web::wait_reason(lab, OTHER, ANNOUNCED, "Announced")?;
            ensure!(message.contains("so it is ignored"), "the message is {message:?}");
            Ok(Some(()))
        })?;
        label(lab, "-")?;
        let workers = ["annotate", "node", "node2", "node3"];
        lab.kubectl(&[&workers[..], &["ferrolb.io/drain="]].concat())?;
        wait::until("the control plane owns the address", web::PAGE_MAX, || {
            let owner = lab.owner_of(server.ip())?;
            ensure!(owner.as_deref() == Some("node1"), "{owner:?} owns the address");
            Ok(Some(()))
        })?;
        lab.kubectl(&[&workers[..], &["ferrolb.io/drain-"]].concat()).map(drop)
    })?;
    ensure!(lost <= LOST_MAX, "{lost} connections were lost");
    Ok(())
}

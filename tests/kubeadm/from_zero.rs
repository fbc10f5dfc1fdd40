//! Complete life cycle of FerroLB with kubectl, while a client connects: installation, use,
//! replacement of its pods, upgrade, drain of a node, and removal.

use crate::client::run_without_loss;
use crate::scenario::{print_measured, run_scenario_alone, step};
use crate::upgrade;
use crate::web::{self, ROLLOUT_MAX};
use crate::{container_privileges, stopped_speakers, three_nodes, uninstall};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Maximum time until all addresses have moved away from node3, as a flag of kubectl.
const MOVED_TIMEOUT: &str = "--timeout=60s";

#[test]
fn install_upgrade_drain_and_uninstall_under_load() {
    run_scenario_alone(&three_nodes("kubeadm"), |lab| {
        let servers = install(lab)?;
        let web = [("IPv4", servers[0]), ("IPv6", servers[1])];
        step("the controllers run on two nodes, and one of them is the control plane", || {
            check_controller_nodes(lab)
        })?;
        step("processes in the pods have exactly the privileges of the manifests", || {
            container_privileges::check(lab)
        })?;
        step("the install file is applied again, and no pod is replaced", || {
            let before = upgrade::pods(lab)?;
            run_without_loss(lab, "installed again", &web, || lab.deploy_ferrolb())?;
            ensure!(upgrade::pods(lab)? == before, "pods were replaced; before: {before}");
            Ok(())
        })?;
        step("the active leader's pod is deleted, and a new Service is served", || {
            run_without_loss(lab, "leader's pod deleted, until a new Service replies", &web, || {
                let leader = leader_pod(lab)?;
                lab.kubectl(&["-n", NAMESPACE, "delete", "pod", &leader, "--wait=false"])?;
                web::expose(lab, "web", "second")?;
                web::wait_pages(lab, "second").map(drop)
            })
        })?;
        step("a rollout restart of the speakers loses no connection", || {
            run_without_loss(lab, "DaemonSet restarted", &web, || {
                lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/speaker"])?;
                upgrade::wait_rolled_out(lab)
            })
        })?;
        stopped_speakers::check_all(lab)?;
        step("an upgrade of both components to another image loses no connection", || {
            upgrade::tag_images(lab)?;
            run_without_loss(lab, "upgraded to another image", &web, || {
                upgrade::set_images(lab)?;
                upgrade::wait_rolled_out(lab)
            })?;
            upgrade::check(lab)
        })?;
        step(
            "a drain of the owner during a rollout of the Deployment loses no connection",
            || drain_owner(lab),
        )?;
        step("the commands of docs/install/uninstall.md remove everything", || {
            uninstall::uninstall(lab, uninstall::BY_FILE)
        })
    });
}

/// Installs FerroLB and serves the pages of a Deployment over IPv4 and IPv6. Returns the Service's
/// addresses.
fn install(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let start = wait::now();
    step("deploy/install.yaml is applied, and all its pods become ready", || lab.deploy_ferrolb())?;
    print_measured(&format!(
        "kubectl apply -f deploy/install.yaml, until all pods are ready: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    let servers = step("a client gets pages of a Deployment, over IPv4 and IPv6", || {
        web::apply_pool(lab)?;
        web::serve_both_families(lab)
    })?;
    print_measured(&format!(
        "from kubectl apply of FerroLB to a page in total: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    step("the control plane, which has the exclude label, does not announce", || {
        let owner = lab.owner_of(servers[0].ip())?.context("no host replies for the Service")?;
        ensure!(owner != "node1", "{owner} owns the address");
        Ok(())
    })?;
    Ok(servers)
}

/// Checks the nodes of the controllers. They prefer the control plane, and even more, different
/// nodes.
fn check_controller_nodes(lab: &Lab) -> Result<()> {
    let selector = "app.kubernetes.io/component=controller";
    let nodes = "jsonpath={.items[*].spec.nodeName}";
    let nodes = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", selector, "-o", nodes])?;
    let nodes: BTreeSet<&str> = nodes.split_whitespace().collect();
    ensure!(nodes.len() == 2 && nodes.contains("node1"), "the controllers run on {nodes:?}");
    Ok(())
}

/// Returns the pod of the active leader: the holder identity of the lease contains the pod's name.
fn leader_pod(lab: &Lab) -> Result<String> {
    let lease = lab.api(async |client| {
        let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
        leases.list(&kube::api::ListParams::default()).await.context("cannot list the leases")
    })?;
    let leader = lease
        .items
        .into_iter()
        .find_map(|lease| lease.spec?.holder_identity)
        .context("the lease has no holder")?;
    let pods = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "name"])?;
    let names = pods.lines().map(|line| line.trim_start_matches("pod/"));
    let found = names.filter(|name| leader.contains(name)).map(str::to_owned).next();
    found.with_context(|| format!("the lease holder {leader} is none of the pods:\n{pods}"))
}

/// Maximum time until an address leaves a drained node. If the drained node's speaker detects the
/// drain later than the other speaker, it claims the address back once. The other node then has a
/// hold-down of 10 s, in which the drained node still serves the address.
const LEAVE_MAX: Duration = Duration::from_secs(20);

/// Drains the owner of two Services, one with policy Local and one with policy Cluster, while the
/// pods of the Deployment in examples/drain.yaml are replaced.
fn drain_owner(lab: &Lab) -> Result<()> {
    let [local, cluster] = web::apply_drain_example(lab)?;
    // Moves both addresses to node2, where they stay until the preempt delay has passed.
    lab.kubectl(&["annotate", "node", "node3", "ferrolb.io/drain="])?;
    lab.kubectl(&[
        "wait",
        "-n",
        NAMESPACE,
        "fspeaker/node3",
        "--for=jsonpath={.status.ownedAddresses}=0",
        MOVED_TIMEOUT,
    ])?;
    lab.kubectl(&["annotate", "node", "node3", "ferrolb.io/drain-"])?;
    for server in [local, cluster] {
        let owner = lab.owner_of(server.ip())?;
        ensure!(owner.as_deref() == Some("node2"), "{owner:?} owns {server}");
    }
    let servers = [("policy Local", local), ("policy Cluster", cluster)];
    run_without_loss(lab, "owner drained while the Deployment is rolled out", &servers, || {
        lab.kubectl(&["rollout", "restart", "deployment/steady"])?;
        lab.kubectl(&["drain", "node2", "--ignore-daemonsets", "--timeout=100s"])?;
        lab.kubectl(&["rollout", "status", "deployment/steady", ROLLOUT_MAX]).map(drop)
    })?;
    for server in [local, cluster] {
        wait::until(&format!("node3 owns {server}"), LEAVE_MAX, || {
            let owner = lab.owner_of(server.ip())?;
            ensure!(owner.as_deref() == Some("node3"), "{owner:?} owns the address");
            Ok(Some(()))
        })?;
    }
    run_without_loss(lab, "drained node uncordoned", &servers, || {
        lab.kubectl(&["uncordon", "node2"]).map(drop)
    })
}

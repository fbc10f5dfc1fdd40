//! Complete life of FerroLB in a cluster, by kubectl: installation, use, replacement of its pods,
//! upgrade, drain of a node, and removal. A client connects all the time.

use crate::client::without_loss;
use crate::scenario::{print_measured, run_scenario, step};
use crate::upgrade;
use crate::web::{self, ROLLOUT_MAX};
use crate::{container_privileges, three_nodes, uninstall};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use std::net::SocketAddr;
use std::time::Duration;

/// Maximum time until all addresses are on the node that is drained next.
const GATHER_MAX: &str = "--timeout=60s";

#[test]
fn install_use_upgrade_drain_and_uninstall_while_a_client_connects() {
    run_scenario(&three_nodes("kubeadm"), |lab| {
        let servers = installed(lab)?;
        let web = [("IPv4", servers[0]), ("IPv6", servers[1])];
        step("the pods may do what the manifests say, seen from their processes", || {
            container_privileges::check(lab)
        })?;
        step("it is installed a second time: no pod is replaced", || {
            let before = upgrade::pods(lab)?;
            without_loss(lab, "installed again", &web, || lab.deploy_ferrolb())?;
            ensure!(upgrade::pods(lab)? == before, "pods were replaced: {before}");
            Ok(())
        })?;
        step(
            "the controller that holds the lease is deleted: no page is lost, and a Service is served",
            || {
                without_loss(lab, "controller deleted, until a new Service answers", &web, || {
                    let holder = leader_pod(lab)?;
                    lab.kubectl(&["-n", NAMESPACE, "delete", "pod", &holder, "--wait=false"])?;
                    web::expose(lab, "web", "second")?;
                    web::served(lab, "second").map(drop)
                })
            },
        )?;
        step("the DaemonSet is restarted, one pod after the other: no page is lost", || {
            without_loss(lab, "DaemonSet restarted", &web, || {
                lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/speaker"])?;
                upgrade::rolled_out(lab)
            })
        })?;
        step("both programs are upgraded to another image: no page is lost", || {
            upgrade::tag(lab)?;
            without_loss(lab, "upgraded to another image", &web, || {
                upgrade::by_kubectl(lab)?;
                upgrade::rolled_out(lab)
            })?;
            upgrade::check(lab)
        })?;
        step("the owner is drained while its Deployment is rolled out: no page is lost", || {
            drained(lab)
        })?;
        step("it is uninstalled as the page says, and nothing of it is left", || {
            uninstall::uninstalled(lab, &["By the file that was applied"])
        })
    });
}

/// Installs FerroLB and serves pages of a Deployment over IPv4 and IPv6. Returns the servers.
fn installed(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let start = wait::now();
    step("deploy/install.yaml is applied, and every pod of it becomes ready", || {
        lab.deploy_ferrolb()
    })?;
    print_measured(&format!(
        "kubectl apply -f deploy/install.yaml, until all pods are ready: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    let servers = step("a client gets pages of a Deployment, over IPv4 and IPv6", || {
        let start = wait::now();
        web::pool(lab)?;
        web::apply(lab)?;
        let servers = web::served(lab, "web")?;
        print_measured(&format!(
            "from apply of Deployment and Service to a page: {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        ensure!(servers.len() == 2, "a dual-stack Service has {servers:?}");
        Ok(servers)
    })?;
    print_measured(&format!(
        "from kubectl apply of FerroLB to a page, in all: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    step("the control plane, which the label keeps out, does not announce", || {
        let owner = lab.owner_of(servers[0].ip())?.context("no host replies")?;
        ensure!(owner != "node1", "{owner} owns the address");
        Ok(())
    })?;
    Ok(servers)
}

/// Returns the pod that holds the controllers' lease: the holder's identity contains its name.
fn leader_pod(lab: &Lab) -> Result<String> {
    let lease = lab.api(async |client| {
        let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
        leases.list(&kube::api::ListParams::default()).await.context("no leases")
    })?;
    let holder = lease
        .items
        .into_iter()
        .find_map(|lease| lease.spec?.holder_identity)
        .context("the lease has no holder")?;
    let pods = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "name"])?;
    let names = pods.lines().map(|line| line.trim_start_matches("pod/"));
    let found = names.filter(|name| holder.contains(name)).map(str::to_owned).next();
    found.with_context(|| format!("{holder} is none of the pods:\n{pods}"))
}

/// Maximum time until an address leaves a drained node. If its speaker learned of the drain late
/// and claimed against the other node, the other holds down the address for 10 s while it is
/// served.
const LEFT_MAX: Duration = Duration::from_secs(20);

/// Drains the owner of two Services, one of each policy, while the pods of the Deployment in
/// examples/drain.yaml are replaced.
fn drained(lab: &Lab) -> Result<()> {
    let [local, cluster] = web::steady(lab)?;
    // Moves both addresses off the other node. They stay where they are until --failback-delay has
    // passed.
    lab.kubectl(&["annotate", "node", "node3", "ferrolb.io/drain="])?;
    lab.kubectl(&[
        "wait",
        "-n",
        NAMESPACE,
        "fspeaker/node3",
        "--for=jsonpath={.status.ownedAddresses}=0",
        GATHER_MAX,
    ])?;
    lab.kubectl(&["annotate", "node", "node3", "ferrolb.io/drain-"])?;
    for server in [local, cluster] {
        let owner = lab.owner_of(server.ip())?;
        ensure!(owner.as_deref() == Some("node2"), "{owner:?} owns {server}");
    }
    let servers = [("policy Local", local), ("policy Cluster", cluster)];
    without_loss(lab, "owner drained while the Deployment is rolled out", &servers, || {
        lab.kubectl(&["rollout", "restart", "deployment/steady"])?;
        lab.kubectl(&["drain", "node2", "--ignore-daemonsets", "--timeout=100s"])?;
        lab.kubectl(&["rollout", "status", "deployment/steady", ROLLOUT_MAX]).map(drop)
    })?;
    for server in [local, cluster] {
        wait::until(&format!("{server} on the node that stays"), LEFT_MAX, || {
            let owner = lab.owner_of(server.ip())?;
            ensure!(owner.as_deref() == Some("node3"), "{owner:?} owns the address");
            Ok(Some(()))
        })?;
    }
    without_loss(lab, "uncordoned", &servers, || lab.kubectl(&["uncordon", "node2"]).map(drop))
}

//! A cluster's whole life with FerroLB, by kubectl: installed, used, its pods replaced, upgraded, a node drained, uninstalled. A client looks on.

use crate::client::unharmed;
use crate::stage::{measured, play, step};
use crate::upgrade;
use crate::web::{self, ROLLOUT_MAX};
use crate::{rights, three_nodes, uninstall};
use anyhow::{Context, Result, ensure};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::{Lab, wait};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use std::net::SocketAddr;
use std::time::Duration;

/// How long all addresses may take to be on the node that is to be drained.
const GATHER_MAX: &str = "--timeout=60s";

#[test]
fn from_the_manifests_to_an_uninstall_while_a_client_looks_on() {
    play(&three_nodes("kubeadm"), |lab| {
        let servers = installed(lab)?;
        let web = [("IPv4", servers[0]), ("IPv6", servers[1])];
        step("the pods may do what the manifests say, seen from their processes", || rights::check(lab))?;
        step("it is installed a second time: no pod is replaced", || {
            let before = upgrade::pods(lab)?;
            unharmed(lab, "installed again", &web, || lab.deploy_ferrolb())?;
            ensure!(upgrade::pods(lab)? == before, "pods were replaced: {before}");
            Ok(())
        })?;
        step("the controller that holds the lease is deleted: no page is lost, and a Service is served", || {
            unharmed(lab, "controller deleted, until a new Service answers", &web, || {
                let holder = holder(lab)?;
                lab.kubectl(&["-n", NAMESPACE, "delete", "pod", &holder, "--wait=false"])?;
                web::expose(lab, "web", "second")?;
                web::served(lab, "second").map(drop)
            })
        })?;
        step("the DaemonSet is restarted, one pod after the other: no page is lost", || {
            unharmed(lab, "DaemonSet restarted", &web, || {
                lab.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/speaker"])?;
                upgrade::rolled_out(lab)
            })
        })?;
        step("both programs are upgraded to another image: no page is lost", || {
            upgrade::tag(lab)?;
            unharmed(lab, "upgraded to another image", &web, || {
                upgrade::by_kubectl(lab)?;
                upgrade::rolled_out(lab)
            })?;
            upgrade::check(lab)
        })?;
        step("the owner is drained while its Deployment is rolled out: no page is lost", || drained(lab))?;
        step("it is uninstalled as the page says, and nothing of it is left", || {
            uninstall::uninstalled(lab, &["By the file that was applied"])
        })
    });
}

/// From nothing of FerroLB to pages of a Deployment, over IPv4 and IPv6; the servers.
fn installed(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let start = wait::now();
    step("deploy/install.yaml is applied, and every pod of it becomes ready", || lab.deploy_ferrolb())?;
    measured(&format!(
        "kubectl apply -f deploy/install.yaml, until all pods are ready: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    let servers = step("a client gets pages of a Deployment, over IPv4 and IPv6", || {
        let start = wait::now();
        web::pool(lab)?;
        web::apply(lab)?;
        let servers = web::served(lab, "web")?;
        measured(&format!("from apply of Deployment and Service to a page: {:.1} s", start.elapsed().as_secs_f64()));
        ensure!(servers.len() == 2, "a Service of both families has {servers:?}");
        Ok(servers)
    })?;
    measured(&format!("from kubectl apply of FerroLB to a page, in all: {:.1} s", start.elapsed().as_secs_f64()));
    step("the control plane, which the label keeps out, does not announce", || {
        let owner = lab.who_answers(servers[0].ip())?.context("nobody answers")?;
        ensure!(owner != "node1", "{owner} answers");
        Ok(())
    })?;
    Ok(servers)
}

/// The pod that holds the controllers' lease: the holder is named after it.
fn holder(lab: &Lab) -> Result<String> {
    let lease = lab.api(async |client| {
        let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
        leases.list(&kube::api::ListParams::default()).await.context("no leases")
    })?;
    let holder =
        lease.items.into_iter().find_map(|lease| lease.spec?.holder_identity).context("nobody holds a lease")?;
    let pods = lab.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "name"])?;
    let names = pods.lines().map(|line| line.trim_start_matches("pod/"));
    let found = names.filter(|name| holder.contains(name)).map(str::to_owned).next();
    found.with_context(|| format!("{holder} is none of the pods:\n{pods}"))
}

/// How long an address may stay on a node that is to go, where its speaker learned of that late and claimed against the other: the other leaves it alone for
/// 10 s while it is served there.
const LEFT_MAX: Duration = Duration::from_secs(20);

/// The Deployment of examples/drain.yaml behind Services of both policies, whose addresses are on one node, which is drained while the pods are replaced.
fn drained(lab: &Lab) -> Result<()> {
    let [local, cluster] = web::steady(lab)?;
    // Both addresses leave the other node, and stay where they are while --failback-delay lasts.
    lab.kubectl(&["annotate", "node", "node3", "ferrolb.io/drain="])?;
    lab.kubectl(&["wait", "-n", NAMESPACE, "fspeaker/node3", "--for=jsonpath={.status.ownedAddresses}=0", GATHER_MAX])?;
    lab.kubectl(&["annotate", "node", "node3", "ferrolb.io/drain-"])?;
    for server in [local, cluster] {
        let owner = lab.who_answers(server.ip())?;
        ensure!(owner.as_deref() == Some("node2"), "{owner:?} answers for {server}");
    }
    let servers = [("policy Local", local), ("policy Cluster", cluster)];
    unharmed(lab, "owner drained while the Deployment is rolled out", &servers, || {
        lab.kubectl(&["rollout", "restart", "deployment/steady"])?;
        lab.kubectl(&["drain", "node2", "--ignore-daemonsets", "--timeout=100s"])?;
        lab.kubectl(&["rollout", "status", "deployment/steady", ROLLOUT_MAX]).map(drop)
    })?;
    for server in [local, cluster] {
        wait::until(&format!("{server} on the node that stays"), LEFT_MAX, || {
            let owner = lab.who_answers(server.ip())?;
            ensure!(owner.as_deref() == Some("node3"), "{owner:?} answers");
            Ok(Some(()))
        })?;
    }
    unharmed(lab, "uncordoned", &servers, || lab.kubectl(&["uncordon", "node2"]).map(drop))
}

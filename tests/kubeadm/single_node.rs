//! A cluster with one node, set up by kubeadm: a control plane with the exclude label. Helm
//! installs FerroLB, installs it again, upgrades it, and uninstalls it. Then `kubectl ferrolb`
//! installs it.

use crate::client::run_without_loss;
use crate::scenario::{print_measured, run_scenario_alone, step};
use crate::{install_command, stopped_speakers, uninstall, upgrade, web};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options, wait};
use std::net::SocketAddr;
use std::time::Duration;

/// Flag of helm that sets a pool as docs/install/helm.md does, with addresses of the lab's network.
const VALUES: &str = "--set-json 'pools=[{\"name\":\"first\",\"addresses\":[\"172.30.0.200-172.30.0.250\",\"fd30::c8-fd30::fa\"]}]'";
/// Name and folder of the chart, and flags with which Helm waits until all pods are ready.
const CHART_AND_FLAGS: &str = "ferrolb deploy/helm/ferrolb --namespace ferrolb-system --create-namespace --wait --timeout 120s";
/// Maximum time from the first page to the condition `Announced`. A speaker writes its status at
/// most once per second.
const CONDITION_MAX: Duration = Duration::from_secs(5);
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

#[test]
fn a_single_node_with_the_exclude_label_is_served() {
    run_scenario_alone(&Options { kubeadm: true, nodes: 1, ..Options::named("kubeadm1") }, |lab| {
        step("the control plane accepts pods, and has the exclude label", || {
            lab.kubectl(&[
                "taint",
                "nodes",
                "--all",
                "node-role.kubernetes.io/control-plane:NoSchedule-",
            ])?;
            check_label(lab)
        })?;
        let servers = install(lab)?;
        step("kubectl ferrolb install refuses to change it", || {
            install_command::check_refused(lab)
        })?;
        step("the condition of the Service has no warning that one node cannot avoid", || {
            let jsonpath =
                "jsonpath={.status.conditions[?(@.type==\"ferrolb.io/Announced\")].message}";
            wait::until("the condition has no warning", CONDITION_MAX, || {
                let message = lab.kubectl(&["get", "service", "web", "-o", jsonpath])?;
                let has_place = message.contains(" from ");
                ensure!(has_place && !message.contains("ignored"), "the message is {message:?}");
                Ok(Some(()))
            })
        })?;
        let web = [("web", servers[0])];
        step("the chart is installed again, and no pod is replaced", || {
            let before = upgrade::pods(lab)?;
            let command = format!("helm upgrade --install {CHART_AND_FLAGS} {VALUES}");
            run_without_loss(lab, "helm upgrade --install without a change", &web, || {
                lab.shell(&command)
            })?;
            ensure!(upgrade::pods(lab)? == before, "pods were replaced; before: {before}");
            Ok(())
        })?;
        step("an upgrade of both components on the only node loses no connection", || {
            upgrade::tag_images(lab)?;
            let tag = upgrade::NEW_TAG;
            let tags = format!(
                "--reset-then-reuse-values --set controller.image.tag={tag} --set speaker.image.tag={tag}"
            );
            run_without_loss(lab, "helm upgrade to another image", &web, || {
                lab.shell(&format!("helm upgrade {CHART_AND_FLAGS} {tags}"))
            })?;
            upgrade::check(lab)
        })?;
        stopped_speakers::check_only(lab)?;
        step("the commands of docs/install/uninstall.md remove everything", || {
            uninstall::uninstall(lab, uninstall::BY_HELM)
        })?;
        step("kubectl ferrolb installs FerroLB, and finds it installed", || {
            install_command::part(lab)
        })
    });
}

/// Installs FerroLB by the chart and serves the pages of a Deployment. Returns the Service's
/// addresses.
fn install(lab: &Lab) -> Result<Vec<SocketAddr>> {
    let start = wait::now();
    step("the chart is installed with a pool", || {
        lab.shell(&format!("helm install {CHART_AND_FLAGS} {VALUES}"))
    })?;
    print_measured(&format!("helm install --wait: {:.1} s", start.elapsed().as_secs_f64()));
    let servers =
        step("a client gets pages of a Deployment, and the exclude label is unchanged", || {
            let servers = web::serve_both_families(lab)?;
            check_label(lab)?;
            Ok(servers)
        })?;
    print_measured(&format!(
        "from helm install to a page in total: {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(servers)
}

/// Checks that every node has the exclude label, which kubeadm sets.
fn check_label(lab: &Lab) -> Result<()> {
    let nodes = lab.kubectl(&["get", "nodes", "-l", EXCLUDE_LABEL, "-o", "name"])?;
    ensure!(nodes.lines().count() == lab.nodes().len(), "only {nodes:?} have the exclude label");
    Ok(())
}

//! One node, as kubeadm leaves it: a control plane with the label that excludes it from load
//! balancers. Installed by Helm, installed again, upgraded, and uninstalled.

use crate::client::without_loss;
use crate::scenario::{print_measured, run_scenario, step};
use crate::{uninstall, upgrade, web};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options, wait};

/// Values as in docs/helm.md, with addresses of the lab's network. Helm waits for the result.
const VALUES: &str = "--set-json 'pools=[{\"name\":\"first\",\"addresses\":[\"172.30.0.200-172.30.0.250\",\"fd30::c8-fd30::fa\"]}]'";
const CHART: &str = "ferrolb deploy/helm/ferrolb --namespace ferrolb-system --create-namespace --wait --timeout 120s";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

#[test]
fn a_single_node_with_the_exclude_label_serves_from_install_to_uninstall_by_helm() {
    run_scenario(&Options { kubeadm: true, nodes: 1, ..Options::named("kubeadm1") }, |lab| {
        step("the control plane takes pods, and has the label", || {
            lab.kubectl(&[
                "taint",
                "nodes",
                "--all",
                "node-role.kubernetes.io/control-plane:NoSchedule-",
            ])?;
            labelled(lab)
        })?;
        let start = wait::now();
        step("the chart is installed with a pool", || {
            lab.shell(&format!("helm install {CHART} {VALUES}"))
        })?;
        print_measured(&format!("helm install --wait: {:.1} s", start.elapsed().as_secs_f64()));
        let servers =
            step("a client gets pages of a Deployment, and the label is still there", || {
                let start = wait::now();
                web::apply(lab)?;
                let servers = web::served(lab, "web")?;
                print_measured(&format!(
                    "from apply of Deployment and Service to a page: {:.1} s",
                    start.elapsed().as_secs_f64()
                ));
                ensure!(servers.len() == 2, "a dual-stack Service has {servers:?}");
                labelled(lab)?;
                Ok(servers)
            })?;
        print_measured(&format!(
            "from helm install to a page, in all: {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        step("the Service says why the label does not count", || {
            let message =
                "jsonpath={.status.conditions[?(@.type==\"ferrolb.io/Announced\")].message}";
            let said = lab.kubectl(&["get", "service", "web", "-o", message])?;
            ensure!(said.contains("so it is ignored"), "it says {said:?}");
            Ok(())
        })?;
        let web = [("web", servers[0])];
        step("it is installed a second time: no pod is replaced", || {
            let before = upgrade::pods(lab)?;
            let again = format!("helm upgrade --install {CHART} {VALUES}");
            without_loss(lab, "helm upgrade --install, of the same", &web, || lab.shell(&again))?;
            ensure!(upgrade::pods(lab)? == before, "pods were replaced: {before}");
            Ok(())
        })?;
        step(
            "both programs are upgraded to another image, with nobody to take over: no page is lost",
            || {
                upgrade::tag(lab)?;
                let tag = upgrade::TAG;
                let tags = format!(
                    "--reset-then-reuse-values --set controller.image.tag={tag} --set speaker.image.tag={tag}"
                );
                without_loss(lab, "helm upgrade to another image", &web, || {
                    lab.shell(&format!("helm upgrade {CHART} {tags}"))
                })?;
                upgrade::check(lab)
            },
        )?;
        step("it is uninstalled as the page says, and nothing of it is left", || {
            uninstall::uninstalled(lab, &["By Helm", "what Helm left"])
        })
    });
}

/// Checks that kubeadm's label is on every node.
fn labelled(lab: &Lab) -> Result<()> {
    let nodes = lab.kubectl(&["get", "nodes", "-l", EXCLUDE, "-o", "name"])?;
    ensure!(nodes.lines().count() == lab.nodes().len(), "the label is on {nodes:?} only");
    Ok(())
}

//! The oldest Kubernetes version that FerroLB supports: installation, and every feature that
//! depends on Kubernetes itself.

use crate::pools::{STATE_MAX, pool};
use crate::scenario::{run_scenario, step};
use crate::segment;
use crate::services::{self, ADDRESS_ASSIGNED, http, service};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::cluster::ferrolb;
use ferrolb_lab::setup::kubernetes::KubernetesVersion;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

#[test]
fn a_dual_stack_service_fails_over_on_the_oldest_kubernetes() {
    let options =
        Options { kubernetes: KubernetesVersion::Oldest, nodes: 2, ..Options::named("oldest") };
    run_scenario(&options, |lab| {
        step("the API server has the oldest supported version", || check_version(lab))?;
        step("FerroLB is installed from deploy/, and the components are ready", || {
            lab.start_ferrolb()
        })?;
        step(
            "the admission policy refuses other namespaces, and the CRD invalid addresses",
            || {
                let mut misplaced = pool("elsewhere", &["172.30.0.240"]);
                misplaced["metadata"]["namespace"] = json!("default");
                check_refused(lab, &pool("oops", &["oops"]), "spec.addresses")?;
                // The API server enforces a new policy after some time.
                wait::until("the API server enforces the policy", STATE_MAX, || {
                    let result = check_refused(lab, &misplaced, "instead of default");
                    lab.kubectl(&["delete", "ipaddresspools", "elsewhere", "--ignore-not-found"])?;
                    result.map(Some)
                })
            },
        )?;
        services::apply_pool_and_pod(lab, "node1")?;
        let addresses = step(
            "a Service gets an address of each family with ipMode, and the condition Announced",
            || serve(lab),
        )?;
        for address in addresses {
            step(&format!("one node announces {address}, and the client gets the page"), || {
                wait_page(lab, address)
            })?;
        }
        step("the owner's speaker is killed, and the other node takes over both addresses", || {
            let owner = segment::owner(lab, addresses[0])?;
            lab.stop(&ferrolb::speaker_name(&owner), Signal::KILL)?;
            for address in addresses {
                wait::until_heard("another node owns the address", STATE_MAX, || {
                    let now = segment::owner(lab, address)?;
                    ensure!(now != owner, "{now} still owns {address}");
                    Ok(Some(()))
                })?;
                wait_page(lab, address)?;
            }
            Ok(())
        })
    });
}

fn check_version(lab: &Lab) -> Result<()> {
    let versions: Value = serde_json::from_str(&lab.kubectl(&["version", "-o", "json"])?)?;
    let (expect, version) =
        (KubernetesVersion::Oldest.name()?, &versions["serverVersion"]["gitVersion"]);
    ensure!(*version == json!(expect), "the version is {version}, not {expect}");
    Ok(())
}

fn check_refused(lab: &Lab, object: &Value, word: &str) -> Result<()> {
    let error =
        lab.apply_objects(std::slice::from_ref(object)).err().context("the object was accepted")?;
    let message = format!("{error:#}");
    ensure!(message.contains(word), "the error does not contain {word:?}: {message}");
    Ok(())
}

fn serve(lab: &Lab) -> Result<[IpAddr; 2]> {
    lab.apply_objects(&[service("web", json!({"ipFamilyPolicy": "RequireDualStack"}))])?;
    let addresses = services::wait_for(lab, "web", "two addresses of mode VIP", |service| {
        let assigned = services::condition(service, ADDRESS_ASSIGNED)?.status == "True";
        let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_deref()?;
        let modes = ingress.iter().all(|entry| entry.ip_mode.as_deref() == Some("VIP"));
        <[IpAddr; 2]>::try_from(services::addresses(service)).ok().filter(|_| assigned && modes)
    })?;
    let condition = services::wait_announced(lab, "web", "Announced", &addresses[0].to_string())?;
    ensure!(
        condition.message.contains(&addresses[1].to_string()),
        "the message lacks the second address: {}",
        condition.message
    );
    Ok(addresses)
}

fn wait_page(lab: &Lab, address: IpAddr) -> Result<()> {
    segment::wait_owner(lab, address)?;
    wait::until("the client gets the page", STATE_MAX, || {
        let page = lab.http_get(CLIENT, http(address), "/")?;
        ensure!(page.body.starts_with("web"), "the client gets {page:?}");
        Ok(Some(()))
    })
}

//! The oldest Kubernetes version that FerroLB supports, from deploy/ to a page: every feature that
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
fn on_the_oldest_kubernetes_both_families_are_served_and_fail_over() {
    let options =
        Options { kubernetes: KubernetesVersion::Oldest, nodes: 2, ..Options::named("oldest") };
    run_scenario(&options, |lab| {
        step("its API server is of that version", || is_oldest(lab))?;
        step("it takes deploy/, and the programs are ready", || lab.start_ferrolb())?;
        step(
            "its admission policy refuses our kinds elsewhere, and its CRDs what is no address",
            || {
                let mut elsewhere = pool("elsewhere", &["172.30.0.240"]);
                elsewhere["metadata"]["namespace"] = json!("default");
                refused(lab, &pool("oops", &["oops"]), "spec.addresses")?;
                // The API server enforces a policy some time after it was written.
                wait::until("a refusal", STATE_MAX, || {
                    let refused = refused(lab, &elsewhere, "instead of default");
                    lab.kubectl(&["delete", "ipaddresspools", "elsewhere", "--ignore-not-found"])?;
                    refused.map(Some)
                })
            },
        )?;
        services::apply_pool_and_pod(lab, "node1")?;
        let addresses = step(
            "a Service gets an address of each family, with its mode, and it is said where",
            || serve(lab),
        )?;
        for address in addresses {
            step(&format!("{address} is answered for by one node, which serves the page"), || {
                page(lab, address)
            })?;
        }
        step("its speaker is killed: the other node has both, and serves", || {
            let owner = segment::owner(lab, addresses[0])?;
            lab.stop(&ferrolb::speaker_name(&owner), Signal::KILL)?;
            for address in addresses {
                wait::until("another owner", STATE_MAX, || {
                    let now = segment::owner(lab, address)?;
                    ensure!(now != owner, "{now} still owns {address}");
                    Ok(Some(()))
                })?;
                page(lab, address)?;
            }
            Ok(())
        })
    });
}

fn is_oldest(lab: &Lab) -> Result<()> {
    let said: Value = serde_json::from_str(&lab.kubectl(&["version", "-o", "json"])?)?;
    let (expect, is) = (KubernetesVersion::Oldest.name()?, &said["serverVersion"]["gitVersion"]);
    ensure!(*is == json!(expect), "the version is {is}, not {expect}");
    Ok(())
}

fn refused(lab: &Lab, object: &Value, word: &str) -> Result<()> {
    let error =
        lab.apply_objects(std::slice::from_ref(object)).err().context("the object was accepted")?;
    let said = format!("{error:#}");
    ensure!(said.contains(word), "{said}");
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
    let said = services::wait_announced(lab, "web", "Announced", &addresses[0].to_string())?;
    ensure!(said.message.contains(&addresses[1].to_string()), "{}", said.message);
    Ok(addresses)
}

fn page(lab: &Lab, address: IpAddr) -> Result<()> {
    segment::wait_owner(lab, address)?;
    wait::until("the page", STATE_MAX, || {
        let page = lab.http_get(CLIENT, http(address), "/")?;
        ensure!(page.body.starts_with("web"), "{page:?}");
        Ok(Some(()))
    })
}

//! `kubectl ferrolb status` and `why` on a real cluster: they explain each state of a Service as
//! the controller does, and their exit codes show whether it is announced.

use crate::announced::leave_no_candidate;
use crate::pools;
use crate::scenario::{run_scenario, step};
use crate::services::{self, ANNOUNCED, WEB, wait_announced};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, Options, Signal, wait};
use serde_json::{Value, json};

#[test]
fn the_commands_explain_what_the_controller_decides() {
    run_scenario(&Options::named("explained"), |lab| {
        lab.start_ferrolb()?;
        lab.apply_objects(&[
            pools::pool("lan", &["172.30.0.200-172.30.0.209"]),
            pools::advertisement(),
        ])?;
        lab.pod("web", "node1", &WEB)?;
        let address = services::serve(lab, "web")?.to_string();
        step("an announced Service: one node announces, the others are candidates", || {
            wait_announced(lab, "web", "Announced", &address)?;
            let (code, text) = why(lab, "web")?;
            ensure!(code == 0, "exit code {code}:\n{text}");
            has(&text, &["default/web: Announced", "announces: eth0", "candidate, rank 2"])?;
            equals_condition(lab, &address)
        })?;
        step("a Service may have a number as its name (KEP-5311)", || explain_number(lab))?;
        step("the status has the speakers, the pool and the Service", || status(lab, &address))?;
        step("the plan of a kustomization: the address is not in the smaller pool", || {
            plan_kustomization(lab, &address)
        })?;
        step("a Service without a candidate: each node has its reason", || {
            leave_no_candidate(lab)?;
            wait_announced(lab, "web", "NoCandidateNode", "")?;
            let (code, text) = why(lab, "default/web")?;
            ensure!(code == 1, "exit code {code}:\n{text}");
            has(
                &text,
                &[
                    "NoCandidateNode",
                    "Endpoints are on node1: change spec.nodeSelectors of L2Advertisement ",
                    "node1   1           no: not selected by an advertisement",
                    "node2   0           no: without eligible endpoint (externalTrafficPolicy Local)",
                    "node3   0           no: labeled exclude-from-external-load-balancers",
                    "conditions.md#causes-of-nocandidatenode",
                ],
            )?;
            equals_condition(lab, &address)
        })?;
        step("a Service without an address: the reason of the assignment", || {
            let spec = json!({"loadBalancerIP": "192.0.2.1"});
            lab.apply_objects(&[services::service("other", spec)])?;
            let found = wait::until("the explanation", pools::STATE_MAX, || {
                let (code, text) = why(lab, "other")?;
                Ok((code == 1 && text.contains("RequestedAddressOutsidePools")).then_some(text))
            })?;
            has(&found, &["192.0.2.1", "conditions.md#services-condition-ferrolbioaddressassigned"])
        })?;
        step("what does not exist, and what is not FerroLB's", || {
            let (code, _) = why(lab, "missing")?;
            ensure!(code == 2, "exit code {code}");
            let (code, text) = why(lab, "kubernetes")?;
            ensure!(code == 1, "exit code {code}");
            has(&text, &["FerroLB does not serve this Service"])?;
            let (code, _) = why(lab, "web --installation default")?;
            ensure!(code == 2, "exit code {code} in a namespace without FerroLB");
            Ok(())
        })?;
        step("without a controller, a new Service has the reason NotWritten", || {
            lab.stop("controller", Signal::TERM)?;
            lab.apply_objects(&[services::service("new", json!({}))])?;
            let (code, text) = why(lab, "new")?;
            ensure!(code == 1, "exit code {code}:\n{text}");
            has(&text, &["default/new: NotWritten", "is not in the status of the Service yet"])
        })
    });
}

fn explain_number(lab: &Lab) -> Result<()> {
    let name = "2048";
    lab.apply_objects(&[services::service(name, json!({}))])?;
    wait_announced(lab, name, "Announced", "")?;
    let (code, text) = why(lab, name)?;
    ensure!(code == 0, "exit code {code}:\n{text}");
    has(&text, &["default/2048: Announced", "announces: eth0"])?;
    lab.kubectl(&["delete", "service", name]).map(drop)
}

/// Returns the exit code and the output of `kubectl ferrolb why`.
fn why(lab: &Lab, service: &str) -> Result<(u8, String)> {
    let command =
        format!("kubectl ferrolb why {service} && echo exit 0 || echo exit $?", service = service);
    let output = lab.shell(&command)?;
    let (text, code) = output.trim_end().rsplit_once("exit ").context("no exit code")?;
    Ok((code.parse()?, text.to_owned()))
}

fn has(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    Ok(())
}

/// Checks that the explanation of the address is the message that the controller wrote.
fn equals_condition(lab: &Lab, address: &str) -> Result<()> {
    let text = lab.shell("kubectl ferrolb why web -o json || true")?;
    let explanation: Value = serde_json::from_str(&text)?;
    let service = services::get(lab, "web")?;
    let condition = services::condition(&service, ANNOUNCED).context("no condition")?;
    let explained = &explanation["explained"][0];
    ensure!(explained["address"] == address, "{explanation:#}");
    ensure!(explained["message"] == *condition.message, "{explained:#} but {condition:#?}");
    ensure!(explained["reason"] == *condition.reason, "{explained:#} but {condition:#?}");
    Ok(())
}

/// Predicts a kustomization that removes the address of the Service from the pool.
fn plan_kustomization(lab: &Lab, address: &str) -> Result<()> {
    let folder = lab.state().file("kustomization");
    std::fs::create_dir_all(&folder)?;
    let pool = pools::pool("lan", &["172.30.0.205-172.30.0.209"]);
    std::fs::write(folder.join("pool.yaml"), pool.to_string())?;
    std::fs::write(folder.join("kustomization.yaml"), "resources: [pool.yaml]\n")?;
    let plan = format!("kubectl ferrolb plan -k {} --fail-on address-loss", folder.display());
    let output = lab.shell(&format!("{plan} && echo exit 0 || echo exit $?"))?;
    has(
        &output,
        &["changes: apply IPAddressPool lan", address, "172.30.0.205", "1 moved", "exit 1"],
    )
}

fn status(lab: &Lab, address: &str) -> Result<()> {
    let text = lab.shell("kubectl ferrolb status")?;
    let header = ["speakers 3 of 3", "Services 1 of 1 announced", "FREE IPV4", "9 of 10"];
    has(&text, &header)?;
    let line = text.lines().find(|line| line.starts_with("default/web")).context("no Service")?;
    has(line, &[address, "node", "Announced"])?;
    let json: Value = serde_json::from_str(&lab.shell("kubectl ferrolb status -o json")?)?;
    ensure!(json["services"][0]["announced"] == true, "{json:#}");
    Ok(())
}

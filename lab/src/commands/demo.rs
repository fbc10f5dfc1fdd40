//! `cargo lab demo`: from nothing to a page served over a LoadBalancer address, a node failure, an
//! impossible request and its correction, and a second node failure, with explanations.

mod failover;
mod kubectl;
mod presentation;
mod recording;
mod scenes;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ferrolb_controller_core::node_failure::failures::RECOVERY_TIME;
use ferrolb_lab::bench::settle;
use ferrolb_lab::setup::kubernetes::KubernetesVersion;
use ferrolb_lab::steps::{Steps, format_duration};
use ferrolb_lab::topology::LabName;
use ferrolb_lab::{Lab, Options, setup, wait};

use super::up::{
    CLUSTER_USUAL_TIME, FERROLB_USUAL_TIME, PREPARE_STEPS, cluster_title, example_commands, prepare,
};
use presentation::Presentation;
use scenes::ServedPage;

/// Default name of the lab of the demo.
const DEFAULT_NAME: &str = "demo";
/// Number of steps after those of `prepare`; one more stops the lab.
const DEMO_STEPS: usize = 12;

// Measured durations on two cores; shown as usual times of the steps.
const SECOND: Duration = Duration::from_secs(1);
const PAGE_USUAL_TIME: Duration = Duration::from_secs(2);
const POWER_OFF_USUAL_TIME: Duration = Duration::from_secs(5);
const POWER_ON_USUAL_TIME: Duration = Duration::from_secs(7);
const RETURN_USUAL_TIME: Duration = Duration::from_secs(15);

/// Runs the demo. With `keep` the lab keeps running. With `record`, the demo's output from the
/// start of the cluster becomes an animated SVG in that file.
pub(crate) fn demo(name: Option<LabName>, keep: bool, record: Option<&Path>) -> Result<()> {
    let start = wait::now();
    let name = name.map_or_else(|| DEFAULT_NAME.parse(), Ok)?;
    let mut steps = Steps::new(PREPARE_STEPS + DEMO_STEPS + usize::from(!keep));
    let tools = prepare(&mut steps, false, KubernetesVersion::Newest)?;
    let mut demo = Presentation::new(steps);
    let options = Options::named(&name.to_string());
    let lab =
        demo.step(&cluster_title(&options), CLUSTER_USUAL_TIME, || Lab::up(&tools, &options))?;
    demo.step(
        "Start FerroLB: deploy/, the controller, a speaker on each node",
        FERROLB_USUAL_TIME,
        || lab.start_ferrolb(),
    )?;
    let served = serve(&mut demo, &lab)?;
    demo.show(&format!(
        "{served}\nFrom `cargo lab demo` to the first page: {}.\n",
        format_duration(wait::now() - start)
    ));
    let served = fail_node_without_pod(&mut demo, &lab, &served)?;
    explain(&mut demo, &lab)?;
    fail_node_with_pod(&mut demo, &lab, &served)?;
    if keep {
        lab.keep()?;
        demo.show(&format!(
            "The lab keeps running.\n{}",
            example_commands(&name, Some(served.address))
        ));
    } else {
        demo.step("Clean up", SECOND, || lab.down())?;
        demo.show("The lab is removed. To explore it next time: cargo lab demo --keep");
    }
    record.map_or(Ok(()), |file| demo.save(file))
}

/// Creates a pool, pods and a Service, and fetches the page over the Service's address.
fn serve(demo: &mut Presentation, lab: &Lab) -> Result<ServedPage> {
    let examples = setup::repository().join("examples");
    demo.step("Apply examples/first-pool.yaml and run a web pod on each node", SECOND, || {
        lab.apply_file(&examples.join("first-pool.yaml"))?;
        scenes::run_pods(lab)
    })?;
    let watched = demo.step("Create the Service of examples/service.yaml", SECOND, || {
        scenes::create_service(lab, &examples.join("service.yaml"))
    })?;
    demo.show(&watched.to_string());
    demo.step("Fetch the page from a client on the LAN", PAGE_USUAL_TIME, || scenes::fetch(lab))
}

/// Powers an owner off that runs no pod of the Service, and powers it on with a pod. Returns the
/// page that is served then.
fn fail_node_without_pod(
    demo: &mut Presentation,
    lab: &Lab,
    served: &ServedPage,
) -> Result<ServedPage> {
    let node = &served.owner;
    let title = format!("Power {node} off; it owns the address and runs no pod of the Service");
    let failover = demo.step(&title, POWER_OFF_USUAL_TIME, || {
        scenes::move_pod_away(lab, node)?;
        failover::power_off(lab, served)
    })?;
    demo.show(&failover.to_string());
    let title = format!("Power {node} on, and run a pod on it again");
    demo.step(&title, RETURN_USUAL_TIME, || {
        settle::power_on_and_wait(lab, node)?;
        let returned = wait::now();
        scenes::run_pod(lab, node)?;
        settle::wait_settled(lab)?;
        // Until then, the controller marks no pods of another node.
        wait::during(RECOVERY_TIME.saturating_sub(returned.elapsed()), || Ok(()))?;
        scenes::fetch(lab)
    })
}

/// Shows a Service that requests an impossible address, and the state of all addresses.
fn explain(demo: &mut Presentation, lab: &Lab) -> Result<()> {
    let refused = demo.step("Request an address that is in no pool", SECOND, || {
        scenes::request_impossible_address(lab)
    })?;
    demo.show(&refused);
    let fixed = demo.step("Remove the request", SECOND, || scenes::remove_request(lab))?;
    demo.show(&fixed);
    let state = demo.step("Show the state of all addresses", SECOND, || scenes::state(lab))?;
    demo.show(&state);
    Ok(())
}

/// Powers an owner off that runs a pod of the Service, and powers it on.
fn fail_node_with_pod(demo: &mut Presentation, lab: &Lab, served: &ServedPage) -> Result<()> {
    let node = &served.owner;
    let title = format!("Power {node} off; it owns the address and runs a pod");
    let failover = demo.step(&title, POWER_OFF_USUAL_TIME, || failover::power_off(lab, served))?;
    demo.show(&format!("{failover}{}", failover::POD_OF_A_FAILED_NODE));
    let title = format!("Power {node} on");
    demo.step(&title, POWER_ON_USUAL_TIME, || settle::power_on_and_wait(lab, node))
}

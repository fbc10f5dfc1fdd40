//! `cargo lab demo`: from nothing to a page served over a LoadBalancer address, and a node failure,
//! with explanations.

mod scenes;

use super::up::{
    CLUSTER_USUAL_TIME, FERROLB_USUAL_TIME, PREPARE_STEPS, cluster_title, example_commands, prepare,
};
use anyhow::Result;
use ferrolb_lab::setup::kubernetes::KubernetesVersion;
use ferrolb_lab::steps::{Steps, format_duration};
use ferrolb_lab::topology::LabName;
use ferrolb_lab::{Lab, Options, setup, wait};
use std::time::Duration;

/// Default name of the lab of the demo.
const DEFAULT_NAME: &str = "demo";
/// Number of steps after those of `prepare`; one more stops the lab.
const DEMO_STEPS: usize = 6;

// Measured durations on two cores; shown as usual times of the steps.
const PODS_USUAL_TIME: Duration = Duration::from_secs(1);
const ADDRESS_USUAL_TIME: Duration = Duration::from_secs(1);
const PAGE_USUAL_TIME: Duration = Duration::from_secs(2);
const POWER_OFF_USUAL_TIME: Duration = Duration::from_secs(5);
const DOWN_USUAL_TIME: Duration = Duration::from_secs(1);

/// Runs the demo; with `keep` the lab keeps running.
pub(crate) fn demo(name: Option<LabName>, keep: bool) -> Result<()> {
    let start = wait::now();
    let name = name.map_or_else(|| DEFAULT_NAME.parse(), Ok)?;
    let mut steps = Steps::new(PREPARE_STEPS + DEMO_STEPS + usize::from(!keep));
    let tools = prepare(&mut steps, false, KubernetesVersion::Newest)?;
    let options = Options::named(&name.to_string());
    let lab =
        steps.step(&cluster_title(&options), CLUSTER_USUAL_TIME, || Lab::up(&tools, &options))?;
    steps.step(
        "Start FerroLB: deploy/, the controller, a speaker on each node",
        FERROLB_USUAL_TIME,
        || lab.start_ferrolb(),
    )?;
    let examples = setup::repository().join("examples");
    steps.step(
        "Apply examples/first-pool.yaml and run a web pod on each node",
        PODS_USUAL_TIME,
        || {
            lab.apply_file(&examples.join("first-pool.yaml"))?;
            scenes::run_pods(&lab)
        },
    )?;
    let watched =
        steps.step("Create the Service of examples/service.yaml", ADDRESS_USUAL_TIME, || {
            scenes::create_service(&lab, &examples.join("service.yaml"))
        })?;
    println!("{watched}");
    let served = steps
        .step("Fetch the page from a client on the LAN", PAGE_USUAL_TIME, || scenes::fetch(&lab))?;
    println!(
        "{served}\nFrom `cargo lab demo` to the first page: {}.\n",
        format_duration(wait::now() - start)
    );
    let title = format!("Power {} off, with a client that connects every 10 ms", served.owner);
    let failover = steps.step(&title, POWER_OFF_USUAL_TIME, || scenes::power_off(&lab, &served))?;
    println!("{failover}");
    if keep {
        lab.power_on(&served.owner)?;
        lab.keep()?;
        println!(
            "{} is on again, and the lab keeps running.\n{}",
            served.owner,
            example_commands(&name, Some(served.address))
        );
        return Ok(());
    }
    steps.step("Clean up", DOWN_USUAL_TIME, || lab.down())?;
    println!("The lab is removed. To explore it next time: cargo lab demo --keep");
    Ok(())
}

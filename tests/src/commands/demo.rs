//! `cargo lab demo`: from nothing to a page served over a LoadBalancer address, and a node that dies, told in plain words.

mod story;

use super::up::{CLUSTER_USUAL, FERROLB_USUAL, PREPARE_STEPS, cluster_title, look_around, prepare};
use anyhow::Result;
use ferrolb_tests::setup::kubernetes::Version;
use ferrolb_tests::steps::{Steps, spoken};
use ferrolb_tests::topology::LabName;
use ferrolb_tests::{Lab, Options, setup, wait};
use std::time::Duration;

/// The lab that the demo raises when it is given no name.
const DEFAULT_NAME: &str = "demo";
/// The steps after those of `prepare`; one more takes the lab down.
const STORY_STEPS: usize = 6;

// What each step takes on two cores, measured; shown as its usual time.
const PODS_USUAL: Duration = Duration::from_secs(1);
const ADDRESS_USUAL: Duration = Duration::from_secs(1);
const PAGE_USUAL: Duration = Duration::from_secs(2);
const POWER_OFF_USUAL: Duration = Duration::from_secs(5);
const DOWN_USUAL: Duration = Duration::from_secs(1);

/// Runs the demo; with `keep` the lab stays.
pub(crate) fn demo(name: Option<LabName>, keep: bool) -> Result<()> {
    let start = wait::now();
    let name = name.map_or_else(|| DEFAULT_NAME.parse(), Ok)?;
    let mut steps = Steps::new(PREPARE_STEPS + STORY_STEPS + usize::from(!keep));
    let tools = prepare(&mut steps, false, Version::Newest)?;
    let options = Options::named(&name.to_string());
    let lab = steps.step(&cluster_title(&options), CLUSTER_USUAL, || Lab::up(&tools, &options))?;
    steps.step("Start FerroLB: deploy/, the controller, a speaker on each node", FERROLB_USUAL, || {
        lab.start_ferrolb()
    })?;
    let examples = setup::repository().join("examples");
    steps.step("Apply examples/first-pool.yaml and run a web pod on each node", PODS_USUAL, || {
        lab.apply_file(&examples.join("first-pool.yaml"))?;
        story::run_pods(&lab)
    })?;
    let watched = steps.step("Create the Service of examples/service.yaml", ADDRESS_USUAL, || {
        story::create_service(&lab, &examples.join("service.yaml"))
    })?;
    println!("{watched}");
    let served = steps.step("Fetch the page from a client on the LAN", PAGE_USUAL, || story::fetch(&lab))?;
    println!("{served}\nFrom `cargo lab demo` to the first page: {}.\n", spoken(wait::now() - start));
    let title = format!("Power {} off, with a client that connects every 10 ms", served.owner);
    let survived = steps.step(&title, POWER_OFF_USUAL, || story::power_off(&lab, &served))?;
    println!("{survived}");
    if keep {
        lab.power_on(&served.owner)?;
        lab.keep()?;
        println!("{} is on again, and the lab stays.\n{}", served.owner, look_around(&name, Some(served.address)));
        return Ok(());
    }
    steps.step("Clean up", DOWN_USUAL, || lab.down())?;
    println!("Nothing is left of it. To look around next time: cargo lab demo --keep");
    Ok(())
}

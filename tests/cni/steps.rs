//! The steps on every plugin. The failover is the last one, because the failed machine stays off.
//! Between installation and failover, the target `cni-release` has more steps.

use crate::scenario::{print_measured, run_scenario_alone, step};
use crate::workload::{self, Servers};
use crate::{failover, interfaces};
use anyhow::{Result, ensure};
use ferrolb_lab::host_state::HostState;
use ferrolb_lab::setup::network_plugin::NetworkPlugin;
use ferrolb_lab::{Lab, Options, wait};
use std::time::Duration;

/// Maximum time until `check` has no finding, on a busy machine.
const CLEAN_MAX: Duration = Duration::from_secs(180);
/// Finding of a node that was busy within the last minutes, which no plugin causes.
const LATE_HELLOS: &str = "FLB045";

/// Order of the installations.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum First {
    Plugin,
    FerroLb,
}

/// Installs the plugin and FerroLB on a new cluster, whose nodes then have the interfaces `links`,
/// and runs the steps, with `more` before the last ones.
pub(crate) fn run(
    options: &Options,
    first: First,
    links: &[&str],
    more: impl Fn(&Lab, &Servers) -> Result<()>,
) {
    let plugin = options.network_plugin.expect("the options have a network plugin");
    run_scenario_alone(options, |lab| {
        let host = HostState::read(lab, plugin)?;
        step("the plugin and FerroLB are installed", || install(lab, first, plugin))?;
        let servers = step("both policies and both families serve pages", || workload::serve(lab))?;
        step("only eth0 announces", || interfaces::check(lab, links))?;
        step("check has no finding", || check_clean(lab))?;
        more(lab, &servers)?;
        step("check still has no finding", || check_clean(lab))?;
        step("nothing of the host has changed", || host.check())?;
        step("the owner's machine loses power", || failover::check(lab, &servers))
    });
}

/// Installs both. The nodes are not ready before the plugin is installed.
fn install(lab: &Lab, first: First, plugin: NetworkPlugin) -> Result<()> {
    if first == First::FerroLb {
        lab.shell("kubectl apply -f deploy/install.yaml")?;
    }
    measured(&format!("installation of {plugin}"), || lab.install_network_plugin())?;
    if first == First::Plugin {
        check_before(lab, plugin)?;
    }
    measured("installation of FerroLB", || lab.deploy_ferrolb())
}

fn measured(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = wait::now();
    work()?;
    print_measured(&format!("{name}: {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Checks that `check --pre` names the plugin, and has no finding.
fn check_before(lab: &Lab, plugin: NetworkPlugin) -> Result<()> {
    let text = lab.shell("kubectl ferrolb check --pre --strict")?;
    let name = format!(", {plugin},");
    ensure!(text.to_lowercase().contains(&name), "the output does not contain {name:?}: {text}");
    Ok(())
}

/// Waits until `check` has no finding other than [`LATE_HELLOS`].
pub(crate) fn check_clean(lab: &Lab) -> Result<()> {
    wait::until("check has no finding", CLEAN_MAX, || {
        let check = lab.shell("kubectl ferrolb check -o short || test $? = 1")?;
        let findings: Vec<_> = check.lines().filter(|line| !line.contains(LATE_HELLOS)).collect();
        ensure!(findings.is_empty(), "check finds: {findings:?}");
        Ok(Some(()))
    })
}

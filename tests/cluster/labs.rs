//! The lab itself: two labs can run side by side, and none leaves anything behind, however its
//! owner ended.

use crate::pools::STATE_MAX;
use crate::scenario::{alone, one_node};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::setup::Tools;
use ferrolb_lab::state::{self, LabState};
use ferrolb_lab::topology::LabName;
use ferrolb_lab::{Lab, netns, process, run, wait};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Maximum time until the first processes of the lab program run: it first builds sources that have
/// changed.
const RAISING_MAX: Duration = Duration::from_secs(180);

#[test]
fn two_labs_stand_side_by_side_and_leave_nothing_behind() {
    alone(|tools| {
        let names = ["left", "right"];
        let left = Lab::up(tools, &one_node(names[0]))?;
        let right = Lab::up(tools, &one_node(names[1]))?;
        for lab in [&left, &right] {
            ensure!(
                lab.kubectl(&["get", "nodes", "-o", "name"])?.trim() == "node/node1",
                "each has its own node"
            );
        }
        let pids = [pids_of(names[0])?, pids_of(names[1])?];
        left.down()?;
        nothing_left(names[0], &pids[0])?;
        right.pod("web", "node1", &[])?;
        ensure!(
            right.kubectl(&["get", "pods", "-o", "name"])?.trim() == "pod/web",
            "the other one goes on"
        );
        // Drops the lab without a call of `down`.
        drop(right);
        nothing_left(names[1], &pids[1])
    });
}

#[test]
fn a_lab_whose_owner_was_killed_is_taken_down_to_nothing() {
    alone(|tools| {
        let name = "orphan";
        let mut owner = lab_program(tools, name)
            .args(["up", "--bare", "--nodes", "1"])
            .stdout(Stdio::null())
            .spawn()?;
        let killed = wait::until("a lab that is coming up", RAISING_MAX, || {
            ensure!(owner.try_wait()?.is_none(), "the lab program has ended by itself");
            let pids = pids_of(name)?;
            Ok((pids.len() >= 2).then_some(pids))
        })
        .and_then(|pids| kill(&mut owner).map(|()| pids));
        let survivors = killed.inspect_err(|_| drop(kill(&mut owner)))?;
        ensure!(survivors.iter().any(|pid| lives(*pid)), "what was killed was more than the owner");
        wait::until("it is taken down", STATE_MAX, || {
            let said = run::run(lab_program(tools, name).arg("down"))?;
            ensure!(said.contains("is gone"), "{said}");
            Ok(Some(()))
        })?;
        nothing_left(name, &survivors)
    });
}

fn lab_program(tools: &Tools, name: &str) -> Command {
    let mut command = Command::new(&tools.programs.lab);
    command.args(["--name", name]);
    command
}

fn kill(owner: &mut Child) -> Result<()> {
    owner.kill()?;
    owner.wait()?;
    Ok(())
}

/// Returns the running processes of a lab.
fn pids_of(name: &str) -> Result<Vec<i32>> {
    let records = process::records(&LabState::open(&name.parse()?)?);
    Ok(records
        .into_iter()
        .filter(process::ProcessRecord::is_alive)
        .map(|record| record.pid)
        .collect())
}

fn lives(pid: i32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}

/// Checks that no namespace, process or file of this lab is left.
fn nothing_left(name: &str, pids: &[i32]) -> Result<()> {
    let name: LabName = name.parse()?;
    let namespaces = netns::list(&name.prefix());
    ensure!(namespaces.is_empty(), "left behind: {namespaces:?}");
    let logs = state::logs(&name);
    let folder = logs.parent().context("a lab has a folder")?;
    ensure!(!folder.exists(), "left behind: {}", folder.display());
    ensure!(!pids.is_empty(), "there was nothing to leave behind");
    // init reaps the children of a killed owner, with some delay.
    wait::until("the end of all its processes", STATE_MAX, || {
        if let Some(pid) = pids.iter().find(|pid| lives(**pid)) {
            bail!(
                "left behind: process {pid}: {:?}",
                fs::read_to_string(format!("/proc/{pid}/comm"))
            );
        }
        Ok(Some(()))
    })
}

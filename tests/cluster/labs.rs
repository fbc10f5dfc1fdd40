//! The lab itself: two labs can run side by side, and a teardown leaves nothing behind, also after
//! the lab program was killed.

use crate::pools::STATE_MAX;
use crate::scenario::{one_node, without_other_labs};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::setup::Tools;
use ferrolb_lab::state::{self, LabState};
use ferrolb_lab::topology::LabName;
use ferrolb_lab::{Lab, netns, process, run, wait};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Maximum time until the lab program has started processes: it first builds changed sources.
const STARTED_MAX: Duration = Duration::from_secs(180);

#[test]
fn two_labs_run_side_by_side_and_leave_nothing_behind() {
    without_other_labs(|tools| {
        let names = ["left", "right"];
        let left = Lab::up(tools, &one_node(names[0]))?;
        let right = Lab::up(tools, &one_node(names[1]))?;
        for lab in [&left, &right] {
            ensure!(
                lab.kubectl(&["get", "nodes", "-o", "name"])?.trim() == "node/node1",
                "a lab has other nodes than its own node1"
            );
        }
        let pids = [pids_of(names[0])?, pids_of(names[1])?];
        left.down()?;
        check_nothing_left(names[0], &pids[0])?;
        right.pod("web", "node1", &[])?;
        ensure!(
            right.kubectl(&["get", "pods", "-o", "name"])?.trim() == "pod/web",
            "the second lab does not work after the teardown of the first"
        );
        // Drops the lab without a call of `down`.
        drop(right);
        check_nothing_left(names[1], &pids[1])
    });
}

#[test]
fn a_lab_with_a_killed_lab_program_is_taken_down() {
    without_other_labs(|tools| {
        let name = "unowned";
        let mut lab_process = lab_program(tools, name)
            .args(["up", "--bare", "--nodes", "1"])
            .stdout(Stdio::null())
            .spawn()?;
        let killed = wait::until("the lab has processes", STARTED_MAX, || {
            ensure!(lab_process.try_wait()?.is_none(), "the lab program has ended by itself");
            let pids = pids_of(name)?;
            Ok((pids.len() >= 2).then_some(pids))
        })
        .and_then(|pids| kill(&mut lab_process).map(|()| pids));
        let survivors = killed.inspect_err(|_| drop(kill(&mut lab_process)))?;
        ensure!(
            survivors.iter().any(|pid| process_exists(*pid)),
            "the kill of the lab program ended all processes of the lab"
        );
        wait::until("the lab is taken down", STATE_MAX, || {
            let output = run::run(lab_program(tools, name).arg("down"))?;
            ensure!(output.contains("is gone"), "{output}");
            Ok(Some(()))
        })?;
        check_nothing_left(name, &survivors)
    });
}

#[test]
fn a_lab_that_cannot_start_says_so_and_leaves_nothing_behind() {
    without_other_labs(|tools| {
        let name = "broken";
        let programs = std::env::temp_dir().join(format!("ferrolb-broken-{}", std::process::id()));
        fs::create_dir(&programs)?;
        let started = with_broken_api_server(tools, &programs)
            .map(|tools| Lab::up(&tools, &one_node(name)).map(drop));
        fs::remove_dir_all(&programs)?;
        let Err(error) = started? else { bail!("the lab started without an API server") };
        let error = format!("{error:#}");
        ensure!(error.starts_with("the lab broken did not start"), "{error}");
        ensure!(error.contains("kube-apiserver"), "the error names no program: {error}");
        check_removed(name)
    });
}

/// Returns tools whose programs are links in the folder `programs`, with a kube-apiserver that ends
/// at once.
fn with_broken_api_server(tools: &Tools, programs: &Path) -> Result<Tools> {
    for program in fs::read_dir(&tools.kubernetes)? {
        let program = program?;
        let broken = program.file_name() == "kube-apiserver";
        let target = if broken { "/bin/false".into() } else { program.path() };
        symlink(target, programs.join(program.file_name()))?;
    }
    Ok(Tools { kubernetes: programs.to_owned(), ..tools.clone() })
}

#[test]
fn idle_work_has_the_lowest_priority() -> Result<()> {
    // A kernel that does not group by session has no such file, and the policy alone counts.
    let groups = fs::exists("/proc/self/autogroup")?;
    let policy = if groups { "chrt --pid $$; cat /proc/$$/autogroup" } else { "chrt --pid $$" };
    let mut idle = Command::new(&Tools::ready()?.programs.lab);
    let output = run::run(idle.args(["idle", "sh", "-c", policy]))?;
    ensure!(output.contains("SCHED_IDLE"), "{output}");
    ensure!(!groups || output.contains("nice 19"), "{output}");
    Ok(())
}

fn lab_program(tools: &Tools, name: &str) -> Command {
    let mut command = Command::new(&tools.programs.lab);
    command.args(["--name", name]);
    command
}

fn kill(lab_process: &mut Child) -> Result<()> {
    lab_process.kill()?;
    lab_process.wait()?;
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

fn process_exists(pid: i32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}

/// Checks that no namespace and no folder of this lab is left, and no process that uses the folder.
fn check_removed(name: &str) -> Result<()> {
    let name: LabName = name.parse()?;
    let namespaces = netns::list(&name.prefix());
    ensure!(namespaces.is_empty(), "the lab left namespaces behind: {namespaces:?}");
    let logs = state::logs(&name);
    let folder = logs.parent().context("the logs have no parent folder")?;
    ensure!(!folder.exists(), "the lab left a folder behind: {}", folder.display());
    for process in fs::read_dir("/proc")?.flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let uses_folder = command.contains(&format!("{}/", folder.display()));
        ensure!(!uses_folder, "the lab left a process behind: {command}");
    }
    Ok(())
}

/// Checks that no namespace, process or file of this lab is left.
fn check_nothing_left(name: &str, pids: &[i32]) -> Result<()> {
    check_removed(name)?;
    ensure!(!pids.is_empty(), "the lab had no processes");
    // init reaps the children of a killed lab program, with some delay.
    wait::until("all processes of the lab have ended", STATE_MAX, || {
        if let Some(pid) = pids.iter().find(|pid| process_exists(**pid)) {
            bail!(
                "the lab left process {pid} behind: {:?}",
                fs::read_to_string(format!("/proc/{pid}/comm"))
            );
        }
        Ok(Some(()))
    })
}

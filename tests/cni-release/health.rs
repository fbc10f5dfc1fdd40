//! Health checks of pods whose addresses the plugin has assigned: a pod that does not reply, while
//! its kubelet reports it Ready, loses its node the address.

use crate::client::{PROBE_INTERVAL, PROBE_TIME_MAX};
use crate::scenario::print_measured;
use crate::workload::Servers;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, run, wait};
use ferrolb_proto::api::NAMESPACE;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// Maximum time until the address moves: three failed checks, one each second, and a busy machine.
const MOVED_MAX: Duration = Duration::from_secs(15);
/// Maximum time until the pod serves again after its program continues.
const BACK_MAX: Duration = Duration::from_secs(30);

/// Stops the pod's program on the owner of both addresses, and lets it continue afterwards.
pub(crate) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    let [v4, v6] = servers.local;
    let owner = owner(lab, v4)?;
    let pod = pod_on(lab, &owner)?;
    let program = program_of(&pod)?;
    let (probing, start) = (lab.start_probe(v4, PROBE_TIME_MAX, PROBE_INTERVAL), wait::now());
    signal(program, "STOP")?;
    let moved = wait::until("another node owns the addresses", MOVED_MAX, || {
        for server in [v4, v6] {
            ensure!(self::owner(lab, server)? != owner, "{owner} owns {server}");
        }
        Ok(Some(()))
    });
    let after = start.elapsed().as_secs_f64();
    // The program continues also after a failure, so that its kubelet can end it.
    signal(program, "CONT")?;
    let report = probing.stop()?;
    moved?;
    print_measured(&format!(
        "health check: {owner} loses the addresses after {after:.1} s, longest gap {:.0} ms",
        report.longest_gap_ms
    ));
    wait::until("no health check fails", BACK_MAX, || {
        let path = "jsonpath={.items[*].status.failingServices}";
        let failing = lab.kubectl(&["-n", NAMESPACE, "get", "fspeaker", "-o", path])?;
        ensure!(failing == "0 0 0", "the speakers report {failing:?} failing Services");
        Ok(Some(()))
    })
}

fn owner(lab: &Lab, server: SocketAddr) -> Result<String> {
    lab.owner_of(server.ip())?.with_context(|| format!("no node replies for {server}"))
}

/// Returns the name of the pod on a node.
fn pod_on(lab: &Lab, node: &str) -> Result<String> {
    let selector = format!("spec.nodeName={node}");
    let arguments = [
        "get",
        "pods",
        "-l",
        "app=web",
        "--field-selector",
        &selector,
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ];
    lab.kubectl(&arguments)
}

/// Returns the process of a pod: its arguments contain the pod's name.
fn program_of(pod: &str) -> Result<i32> {
    let is_program = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<_> = arguments.split(|byte| *byte == 0).collect();
        arguments.get(1..3) == Some(&[b"serve".as_slice(), pod.as_bytes()])
    };
    let names = fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
    let mut pids = names.filter_map(|name| name.to_str()?.parse::<i32>().ok());
    pids.find(is_program).with_context(|| format!("{pod} has no process"))
}

fn signal(pid: i32, name: &str) -> Result<()> {
    run::run(Command::new("kill").args([format!("-{name}"), pid.to_string()])).map(drop)
}

//! Docker engine of the lab, for routers in containers: a dockerd in the switch's namespace, whose
//! networks are the switch's bridges.
//!
//! All files of the engine are in the lab's directory and are removed with the lab. The machine's
//! own engine is not affected.

mod images;

pub use images::ContainerImage;

use super::{groups, network};
use crate::process::{self, Launch};
use crate::state::{LabFacts, LabState};
use crate::topology::{Families, Host, SWITCH, Subnet, routers};
use crate::{run, wait};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Process name of the engine in the lab.
pub const ENGINE: &str = "dockerd";
/// Maximum time until the engine replies, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(30);
/// Bridge of each lab network, and the engine's own addresses in it, which no lab host has.
const NETWORKS: [(Subnet, &str, [&str; 2]); 2] = [
    (Subnet::Lan, "br0", ["172.30.0.254", "fd30::fffe"]),
    (Subnet::Outside, "br1", ["172.31.0.254", "fd31::fffe"]),
];
/// Starts an engine (the command from `$1` on) for which a directory of the lab (`$0`) replaces the
/// machine's `/run`. So the engine finds no other engine there, and its mounts end with it.
const START_SCRIPT: &str = r#"mount --bind "$0" "$0/docker/run${0#/run}" && mount --rbind "$0/docker/run" /run && exec "$@""#;

/// Starts the engine, creates the images, and starts and connects a container for each host that is
/// a container.
///
/// # Errors
/// If the engine does not start, with the end of its log, or if a command fails.
pub fn start_engine(state: &LabState, facts: &LabFacts) -> Result<()> {
    ensure!(
        facts.families == Families::Dual,
        "the lab must be dual stack, because the Docker networks have both families"
    );
    start_dockerd(state)?;
    for (subnet, bridge, own) in NETWORKS {
        create_network(state, subnet, bridge, own)?;
    }
    let gobgp = facts.gobgp.as_deref().context("a lab with routers needs GoBGP")?;
    ContainerImage::ALL.into_iter().try_for_each(|image| image.build(state, gobgp))?;
    let hosts: Vec<Host> =
        facts.hosts().into_iter().filter(|host| facts.is_container(host)).collect();
    std::thread::scope(|scope| {
        let hosts: Vec<_> =
            hosts.iter().map(|host| scope.spawn(move || start_host(state, host))).collect();
        hosts.into_iter().try_for_each(|host| {
            host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// Returns Docker's command line for the lab's engine.
pub fn command(state: &LabState) -> Command {
    let mut docker = Command::new("docker");
    docker.envs(environment(state));
    docker
}

/// Returns the environment that selects the lab's engine in Docker's command line.
pub fn environment(state: &LabState) -> BTreeMap<String, String> {
    [("DOCKER_HOST".to_owned(), socket(state))].into()
}

fn socket(state: &LabState) -> String {
    format!("unix://{}", state.file("docker.sock").display())
}

fn start_dockerd(state: &LabState) -> Result<()> {
    let engine_folder = state.file("docker");
    let folder = state.file("").display().to_string().trim_end_matches('/').to_owned();
    let inside = folder.strip_prefix("/run/").context("the lab's directory is not under /run")?;
    fs::create_dir_all(engine_folder.join("run").join(inside))?;
    let settings = engine_folder.join("daemon.json");
    // The engine changes nothing of the machine: no packet filter, no routes, and no other control
    // groups.
    let text = json!({
        "data-root": engine_folder.join("lib"), "hosts": [socket(state)], "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false,
        "ip-masq": false, "userland-proxy": false, "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": groups::parent(&state.name)
    });
    fs::write(&settings, text.to_string())?;
    let settings = settings.display().to_string();
    let args =
        ["--mount", "sh", "-c", START_SCRIPT, &folder, "dockerd", "--config-file", &settings];
    // If containerd does not reply, dockerd makes it write its stacks to the temporary directory.
    let temporary = ("TMPDIR".to_owned(), engine_folder.display().to_string());
    process::start(
        state,
        Launch {
            name: ENGINE.to_owned(),
            host: SWITCH.to_owned(),
            node: None,
            program: PathBuf::from("/usr/bin/unshare"),
            args: args.map(str::to_owned).into(),
            env: [temporary].into(),
            low_priority: false,
        },
    )?;
    wait::until("the Docker engine replies", READY_MAX, || {
        run::run(command(state).args(["version", "--format", "{{.Server.Version}}"])).map(Some)
    })
    .map(drop)
    .with_context(|| run::last_lines(&process::log(state, ENGINE), 20))
}

/// Creates a network on an existing bridge of the switch. The network is internal: the lab adds its
/// own default routes.
fn create_network(state: &LabState, subnet: Subnet, bridge: &str, own: [&str; 2]) -> Result<()> {
    let mut create = command(state);
    create.args(["network", "create", "--internal", "--ipv6"]);
    for (range, own) in subnet.ranges().iter().zip(own) {
        create.args(["--subnet", range, "--gateway", own]);
    }
    create.args(["--opt", &format!("com.docker.network.bridge.name={bridge}")]);
    run::run(create.args(["--opt", "com.docker.network.bridge.inhibit_ipv4=true", bridge]))?;
    Ok(())
}

/// Starts a container without a workload, like a pod's sandbox. The routers join its network
/// namespace, which gets the name that the host's namespace has in every lab.
fn start_host(state: &LabState, host: &Host) -> Result<()> {
    let mut docker = command(state);
    docker
        .args(["run", "--detach", "--name", &host.name, "--network", bridge(host)?])
        .args(addresses(host));
    run::run(docker.args([ContainerImage::Host.name(), "sleep", "infinity"]))?;
    if let Some(outside) = routers::outside_host(host) {
        let mut docker = command(state);
        run::run(
            docker
                .args(["network", "connect"])
                .args(addresses(&outside))
                .args([bridge(&outside)?, &host.name]),
        )?;
    }
    let pid = run::run(command(state).args(["inspect", "--format", "{{.State.Pid}}", &host.name]))?;
    run::run(Command::new("ip").args([
        "netns",
        "attach",
        &state.name.namespace(&host.name),
        pid.trim(),
    ]))?;
    network::set_up_container(&state.name, host)
}

fn bridge(host: &Host) -> Result<&'static str> {
    let network = NETWORKS.into_iter().find(|(subnet, ..)| *subnet == host.subnet);
    network
        .map(|(_, bridge, _)| bridge)
        .with_context(|| format!("{} is in no network of the lab", host.name))
}

fn addresses(host: &Host) -> [String; 4] {
    ["--ip".to_owned(), host.v4().to_string(), "--ip6".to_owned(), host.v6().to_string()]
}

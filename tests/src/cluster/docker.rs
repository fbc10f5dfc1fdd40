//! The lab's own Docker engine, where its routers are containers: a dockerd in the switch's namespace, whose networks are the switch's bridges.
//! All that it has is in the lab's folder and ends with the lab; an engine of the machine's own is not touched.

mod images;

pub use images::Image;

use super::{groups, wire};
use crate::process::{self, Launch};
use crate::state::{Facts, State};
use crate::topology::{Families, Host, SWITCH, Subnet, routers};
use crate::{run, wait};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// What the engine is called in the lab.
pub const ENGINE: &str = "dockerd";
/// How long it may take until it answers, on a busy machine.
const READY_MAX: Duration = Duration::from_secs(30);
/// Of each of the lab's networks the bridge, and what an engine must have that no host of the lab has: an address of its own in it.
const NETWORKS: [(Subnet, &str, [&str; 2]); 2] =
    [(Subnet::Lan, "br0", ["172.30.0.254", "fd30::fffe"]), (Subnet::Outside, "br1", ["172.31.0.254", "fd31::fffe"])];
/// Starts an engine (`$1` on) that sees, in place of the machine's `/run`, one in the lab's folder (`$0`): it finds no other engine there, and what
/// it mounts goes with it.
const SCRIPT: &str = r#"mount --bind "$0" "$0/docker/run${0#/run}" && mount --rbind "$0/docker/run" /run && exec "$@""#;

/// Starts the engine, makes the images, and links a container for each of the hosts that are some.
///
/// # Errors
/// When the engine does not start, with its last words, or does not do as it is told.
pub fn raise(state: &State, facts: &Facts) -> Result<()> {
    ensure!(facts.families == Families::Dual, "the Docker networks have both families, and so must the lab");
    start(state)?;
    for (subnet, bridge, own) in NETWORKS {
        make_network(state, subnet, bridge, own)?;
    }
    let gobgp = facts.gobgp.as_deref().context("a lab with routers has GoBGP")?;
    Image::ALL.into_iter().try_for_each(|image| image.make(state, gobgp))?;
    let hosts: Vec<Host> = facts.hosts().into_iter().filter(|host| facts.is_container(host)).collect();
    std::thread::scope(|scope| {
        let hosts: Vec<_> = hosts.iter().map(|host| scope.spawn(move || start_host(state, host))).collect();
        hosts.into_iter().try_for_each(|host| host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Docker's command line, for the lab's engine.
pub fn command(state: &State) -> Command {
    let mut docker = Command::new("docker");
    docker.envs(environment(state));
    docker
}

/// What makes Docker's command line speak to the lab's engine.
pub fn environment(state: &State) -> BTreeMap<String, String> {
    [("DOCKER_HOST".to_owned(), socket(state))].into()
}

fn socket(state: &State) -> String {
    format!("unix://{}", state.file("docker.sock").display())
}

fn start(state: &State) -> Result<()> {
    let own = state.file("docker");
    let folder = state.file("").display().to_string().trim_end_matches('/').to_owned();
    let inside = folder.strip_prefix("/run/").context("the lab's folder is under /run")?;
    fs::create_dir_all(own.join("run").join(inside))?;
    let settings = own.join("daemon.json");
    // Nothing of the machine's: neither its packet filter and routes, nor the control groups of others.
    let text = json!({
        "data-root": own.join("lib"), "hosts": [socket(state)], "bridge": "none", "iptables": false, "ip6tables": false, "ip-forward": false,
        "ip-masq": false, "userland-proxy": false, "exec-opts": ["native.cgroupdriver=cgroupfs"], "cgroup-parent": groups::parent(&state.name)
    });
    fs::write(&settings, text.to_string())?;
    let settings = settings.display().to_string();
    let args = ["--mount", "sh", "-c", SCRIPT, &folder, "dockerd", "--config-file", &settings];
    process::start(
        state,
        Launch {
            name: ENGINE.to_owned(),
            host: SWITCH.to_owned(),
            node: None,
            program: PathBuf::from("/usr/bin/unshare"),
            args: args.map(str::to_owned).into(),
            env: [].into(),
            yields: false,
        },
    )?;
    wait::until("the Docker engine answers", READY_MAX, || {
        run::run(command(state).args(["version", "--format", "{{.Server.Version}}"])).map(Some)
    })
    .map(drop)
    .with_context(|| run::last_lines(&process::log(state, ENGINE), 20))
}

/// A network on a bridge that the switch has already. It is internal: the ways out are the lab's own.
fn make_network(state: &State, subnet: Subnet, bridge: &str, own: [&str; 2]) -> Result<()> {
    let mut create = command(state);
    create.args(["network", "create", "--internal", "--ipv6"]);
    for (range, own) in subnet.ranges().iter().zip(own) {
        create.args(["--subnet", range, "--gateway", own]);
    }
    create.args(["--opt", &format!("com.docker.network.bridge.name={bridge}")]);
    run::run(create.args(["--opt", "com.docker.network.bridge.inhibit_ipv4=true", bridge]))?;
    Ok(())
}

/// A container that does nothing but be there, as a pod's sandbox: the routers come into its network namespace, which has the name that a host's
/// has in any lab.
fn start_host(state: &State, host: &Host) -> Result<()> {
    let mut docker = command(state);
    docker.args(["run", "--detach", "--name", &host.name, "--network", bridge(host)?]).args(addresses(host));
    run::run(docker.args([Image::Host.name(), "sleep", "infinity"]))?;
    if let Some(foot) = routers::foot(host) {
        let mut docker = command(state);
        run::run(docker.args(["network", "connect"]).args(addresses(&foot)).args([bridge(&foot)?, &host.name]))?;
    }
    let pid = run::run(command(state).args(["inspect", "--format", "{{.State.Pid}}", &host.name]))?;
    run::run(Command::new("ip").args(["netns", "attach", &state.name.namespace(&host.name), pid.trim()]))?;
    wire::set_up_container(&state.name, host)
}

fn bridge(host: &Host) -> Result<&'static str> {
    let network = NETWORKS.into_iter().find(|(subnet, ..)| *subnet == host.subnet);
    network.map(|(_, bridge, _)| bridge).with_context(|| format!("{} stands in no network of the lab", host.name))
}

fn addresses(host: &Host) -> [String; 4] {
    ["--ip".to_owned(), host.v4().to_string(), "--ip6".to_owned(), host.v6().to_string()]
}

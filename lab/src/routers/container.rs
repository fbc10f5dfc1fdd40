//! Routers as containers, one for each router, like a user would run them with Docker: with default
//! paths in the container, and commands by `docker exec`. Each container joins the network
//! namespace of a host that is a container. The process that the lab records is the attached
//! `docker run`, which forwards signals.

use super::RouterKind;
use crate::cluster::docker::{self, ContainerImage};
use crate::process::Launch;
use crate::state::LabState;
use std::path::Path;
use std::process::Command;

/// Starts FRR's daemons (BGP port: `$0`). The container ends with bgpd. On SIGTERM, bgpd and then
/// the other daemons stop in order, so that each cleans up.
const FRR_SCRIPT: &str = r#"chown frr:frr /run/frr /var/tmp && cd /usr/lib/frr || exit
trap 'for pid in $bgpd $bfdd $zebra; do kill $pid; wait $pid; done; exit' TERM
config="-f /etc/frr/frr.conf -P 0 --log stdout"
./zebra $config & zebra=$!
until [ -S /run/frr/zserv.api ]; do sleep 0.1; done
./bfdd $config & bfdd=$!
./bgpd $config -p "$0" & bgpd=$!
wait $bgpd"#;

/// Container parameters of a kind of router.
struct ContainerSpec {
    image: ContainerImage,
    /// Capabilities in addition to Docker's defaults.
    capabilities: &'static [&'static str],
    /// Path of the configuration in the container.
    config: &'static str,
    command: Vec<String>,
}

fn container_spec(kind: RouterKind, port: u16) -> ContainerSpec {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match kind {
        RouterKind::Frr => ContainerSpec {
            image: ContainerImage::Frr,
            capabilities: &["NET_ADMIN", "SYS_ADMIN"],
            config: "/etc/frr/frr.conf",
            command: words(&["sh", "-c", FRR_SCRIPT, &port.to_string()]),
        },
        RouterKind::Bird => ContainerSpec {
            image: ContainerImage::Bird,
            capabilities: &["NET_ADMIN"],
            config: "/etc/bird/bird.conf",
            command: words(&["bird", "-f"]),
        },
        RouterKind::Gobgp => ContainerSpec {
            image: ContainerImage::Gobgp,
            capabilities: &[],
            config: "/etc/gobgp/gobgpd.conf",
            command: words(&[
                "gobgpd",
                "--log-plain",
                "--pprof-disable",
                "--config-file",
                "/etc/gobgp/gobgpd.conf",
            ]),
        },
    }
}

fn name(kind: RouterKind, host: &str) -> String {
    let daemon = match kind {
        RouterKind::Frr => "frr",
        RouterKind::Bird => "bird",
        RouterKind::Gobgp => "gobgpd",
    };
    format!("{daemon}-{host}")
}

pub(super) fn launch(
    state: &LabState,
    kind: RouterKind,
    host: &str,
    config: &Path,
    port: u16,
) -> Launch {
    let (name, spec) = (name(kind, host), container_spec(kind, port));
    let (network, volume) =
        (format!("container:{host}"), format!("{}:{}:ro", config.display(), spec.config));
    let mut args: Vec<String> =
        ["run", "--rm", "--name", &name, "--network", &network, "--volume", &volume]
            .map(str::to_owned)
            .into();
    args.extend(spec.capabilities.iter().map(|capability| format!("--cap-add={capability}")));
    args.push(spec.image.name().to_owned());
    args.extend(spec.command);
    Launch {
        name,
        host: host.to_owned(),
        node: None,
        program: "docker".into(),
        args,
        env: docker::environment(state),
        low_priority: false,
    }
}

/// Returns the command that runs the router's own command line in the container.
pub(super) fn command(state: &LabState, kind: RouterKind, host: &str, words: &[&str]) -> Command {
    let mut docker = docker::command(state);
    docker.args(["exec", &name(kind, host)]);
    match kind {
        RouterKind::Frr => docker.arg("vtysh").args(words.iter().flat_map(|line| ["-c", *line])),
        RouterKind::Bird => docker.arg("birdc").args(words),
        RouterKind::Gobgp => docker.arg("gobgp").args(words),
    };
    docker
}

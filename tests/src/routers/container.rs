//! Routers as containers, one for each, as who runs them with Docker would: with their own paths inside, asked by `docker exec`. Each comes into the
//! network namespace of a host that is a container. The process of the lab is the `docker run` that stays with it and hands signals on.

use super::Kind;
use crate::cluster::docker::{self, Image};
use crate::process::Launch;
use crate::state::State;
use std::path::Path;
use std::process::Command;

/// FRR's daemons (port of BGP: `$0`): bgpd's end is the container's, and told to end it takes the others along, who clean up after it.
const FRR: &str = r#"chown frr:frr /run/frr /var/tmp && cd /usr/lib/frr || exit
trap 'for pid in $bgpd $bfdd $zebra; do kill $pid; wait $pid; done; exit' TERM
config="-f /etc/frr/frr.conf -P 0 --log stdout"
./zebra $config & zebra=$!
until [ -S /run/frr/zserv.api ]; do sleep 0.1; done
./bfdd $config & bfdd=$!
./bgpd $config -p "$0" & bgpd=$!
wait $bgpd"#;

/// What a kind of router is as a container.
struct Form {
    image: Image,
    /// What it may do besides what every container may.
    capabilities: &'static [&'static str],
    /// Where its configuration is, inside.
    config: &'static str,
    command: Vec<String>,
}

fn form(kind: Kind, port: u16) -> Form {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match kind {
        Kind::Frr => Form {
            image: Image::Frr,
            capabilities: &["NET_ADMIN", "SYS_ADMIN"],
            config: "/etc/frr/frr.conf",
            command: words(&["sh", "-c", FRR, &port.to_string()]),
        },
        Kind::Bird => Form {
            image: Image::Bird,
            capabilities: &["NET_ADMIN"],
            config: "/etc/bird/bird.conf",
            command: words(&["bird", "-f"]),
        },
        Kind::Gobgp => Form {
            image: Image::Gobgp,
            capabilities: &[],
            config: "/etc/gobgp/gobgpd.conf",
            command: words(&["gobgpd", "--log-plain", "--pprof-disable", "--config-file", "/etc/gobgp/gobgpd.conf"]),
        },
    }
}

fn name(kind: Kind, host: &str) -> String {
    let daemon = match kind {
        Kind::Frr => "frr",
        Kind::Bird => "bird",
        Kind::Gobgp => "gobgpd",
    };
    format!("{daemon}-{host}")
}

pub(super) fn launch(state: &State, kind: Kind, host: &str, config: &Path, port: u16) -> Launch {
    let (name, form) = (name(kind, host), form(kind, port));
    let (network, volume) = (format!("container:{host}"), format!("{}:{}:ro", config.display(), form.config));
    let mut args: Vec<String> =
        ["run", "--rm", "--name", &name, "--network", &network, "--volume", &volume].map(str::to_owned).into();
    args.extend(form.capabilities.iter().map(|capability| format!("--cap-add={capability}")));
    args.push(form.image.name().to_owned());
    args.extend(form.command);
    Launch {
        name,
        host: host.to_owned(),
        node: None,
        program: "docker".into(),
        args,
        env: docker::environment(state),
        yields: false,
    }
}

/// Its own command line, inside.
pub(super) fn ask(state: &State, kind: Kind, host: &str, words: &[&str]) -> Command {
    let mut docker = docker::command(state);
    docker.args(["exec", &name(kind, host)]);
    match kind {
        Kind::Frr => docker.arg("vtysh").args(words.iter().flat_map(|line| ["-c", *line])),
        Kind::Bird => docker.arg("birdc").args(words),
        Kind::Gobgp => docker.arg("gobgp").args(words),
    };
    docker
}

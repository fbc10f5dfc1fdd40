//! Host of a block, and shell functions for programs that the lab replaces.

use anyhow::Result;
use ferrolb_lab::cluster::kubeadm::machine;
use ferrolb_lab::topology::routers::ROUTERS;
use ferrolb_lab::topology::{CLIENT, node_name};
use ferrolb_lab::{Lab, routers};
use ferrolb_markdown::{Place, Topology};

/// Function for commands of nodes and routers: the commands run as root.
const SUDO: &str = "sudo() { \"$@\"; }";

/// Returns the host on which a block runs, and the functions for its commands.
///
/// # Errors
/// If a router or a node of the lab does not exist, or a machine is off.
pub(super) fn host_and_functions(
    place: Option<Place>,
    lab: Option<&Lab>,
) -> Result<(String, String)> {
    let Some(lab) = lab else { return Ok((CLIENT.to_owned(), String::new())) };
    Ok(match place {
        Some(Place::Node) => (node_name(1), SUDO.to_owned()),
        Some(Place::Router) => {
            let router = ROUTERS[0];
            let functions = format!("{SUDO}\n{}", routers::shell_functions(lab, router)?);
            (router.to_owned(), functions)
        }
        Some(Place::Client(Topology::Bgp)) => (CLIENT.to_owned(), cargo(lab)),
        Some(Place::Client(Topology::Kubeadm)) if lab.state().facts()?.kubeadm => {
            (CLIENT.to_owned(), ssh(lab)?)
        }
        Some(Place::Client(_)) | None => (CLIENT.to_owned(), String::new()),
    })
}

/// Returns a function for `cargo lab kubectl` and `cargo lab exec` in the lab of the test.
fn cargo(lab: &Lab) -> String {
    let prefix = lab.state().name.namespace("");
    format!(
        "cargo() {{\ncase $2 in\nkubectl) shift 2; kubectl \"$@\" ;;\n\
         exec) lab_host=$3; shift 4; ip netns exec {prefix}$lab_host \"$@\" ;;\nesac\n}}"
    )
}

/// Returns a function for `ssh NODE COMMAND` to the machines of the lab, which run no SSH server.
fn ssh(lab: &Lab) -> Result<String> {
    let mut cases = String::new();
    for node in lab.nodes() {
        let command = machine::command(lab.state(), &node)?;
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.display().to_string()).collect();
        cases += &format!("{node}) {} sh -c '{SUDO}; '\"$*\" ;;\n", words.join(" "));
    }
    Ok(format!("ssh() {{\nlab_host=$1\nshift\ncase $lab_host in\n{cases}esac\n}}"))
}

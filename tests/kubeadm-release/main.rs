//! More scenarios of installed FerroLB than the target `kubeadm` has: nodes that fail or stop, and
//! speakers that stop while their nodes run, with two and three workers next to the control plane.
//! `cargo lab test kubeadm` runs both targets, before a release; `cargo lab test` without a tier
//! leaves this one out. The tests need root and a machine with cgroup v1.

mod evidence;
mod failures;
mod restarts;
mod stops;
mod version_2;

use anyhow::Result;
use ferrolb_lab::bench::power_off;
use ferrolb_lab::{Lab, Options, scenario};
use std::net::SocketAddr;

/// The control plane, which the lab does not let fail.
const CONTROL_PLANE: &str = "node1";

/// Returns the options of a lab with a control plane and so many workers.
fn workers(name: &str, count: u8) -> Options {
    Options { kubeadm: true, nodes: count + 1, ..Options::named(name) }
}

/// Installs FerroLB and a Service with a pod on each node, and waits until each speaker receives
/// replies of all others. Returns the socket address of the Service.
fn install(lab: &Lab) -> Result<SocketAddr> {
    scenario::step("FerroLB is deployed, and a Service has a pod on each node", || {
        lab.deploy_ferrolb()?;
        let server = power_off::create_service(lab)?;
        evidence::wait_replies(lab)?;
        Ok(server)
    })
}

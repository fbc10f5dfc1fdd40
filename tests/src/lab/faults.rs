//! Power: what happens to a node whose plug is pulled, and to one that starts again.

use super::Lab;
use crate::cluster::{pods, wire};
use crate::{netns, process};
use anyhow::{Result, ensure};

impl Lab {
    /// Pulls the plug of a node: its switch port goes down, and every process on it and in its pods is killed. Kubernetes is told nothing.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn power_off(&self, node: &str) -> Result<()> {
        self.host(node)?;
        wire::set_port(&self.state.name, node, false)?;
        let mut namespaces = vec![self.state.name.namespace(node)];
        namespaces.extend(pods::on_node(&self.state, node).iter().map(|pod| self.state.name.namespace(pod)));
        process::kill(netns::pids(&namespaces).into_iter().map(|pid| (pid, None)))
    }

    /// Starts a node again, with all that ran on it before: kube-proxy, its speaker, its pods' web servers.
    ///
    /// # Errors
    /// When it is on.
    pub fn power_on(&self, node: &str) -> Result<()> {
        self.host(node)?;
        let records = process::records(&self.state);
        let its: Vec<_> = records.into_iter().filter(|record| record.launch.node.as_deref() == Some(node)).collect();
        ensure!(its.iter().all(|record| !record.is_alive()), "{node} is on");
        wire::set_port(&self.state.name, node, true)?;
        its.into_iter().try_for_each(|record| process::start(&self.state, record.launch).map(drop))
    }

    /// Unplugs a host's network cable, or plugs it in again; its processes go on.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn set_link(&self, host: &str, up: bool) -> Result<()> {
        self.host(host)?;
        wire::set_port(&self.state.name, host, up)
    }
}

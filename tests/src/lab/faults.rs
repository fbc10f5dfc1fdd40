//! Power and cables: what happens to a host whose plug is pulled, to one that starts again, and to frames that the switch loses.

use super::Lab;
use crate::cluster::{pods, wire};
use crate::topology::SWITCH;
use crate::{netns, process, run};
use anyhow::{Result, ensure};
use std::process::Command;

/// The nftables table that drops frames on the switch.
const DROPS: &str = "table bridge drops";

impl Lab {
    /// Pulls the plug of a host: its switch port goes down, every process on it and in its pods is killed, and its packet filter is empty, as
    /// after a boot. Kubernetes is told nothing.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn power_off(&self, node: &str) -> Result<()> {
        self.host(node)?;
        wire::set_port(&self.state.name, node, false)?;
        let mut namespaces = vec![self.state.name.namespace(node)];
        namespaces.extend(pods::on_node(&self.state, node).iter().map(|pod| self.state.name.namespace(pod)));
        process::kill(netns::pids(&namespaces).into_iter().map(|pid| (pid, None)))?;
        // From outside: a machine that is off runs nothing.
        self.within(node, || run::run(Command::new("nft").args(["flush", "ruleset"])))?.map(drop)
    }

    /// Starts a host again, with all that ran on it before: kube-proxy, its speaker, its pods' web servers; or the control plane.
    ///
    /// # Errors
    /// When it is on.
    pub fn power_on(&self, node: &str) -> Result<()> {
        self.host(node)?;
        let records = process::records(&self.state);
        let on = |launch: &process::Launch| launch.host == node || launch.node.as_deref() == Some(node);
        let its: Vec<_> = records.into_iter().filter(|record| on(&record.launch)).collect();
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
    /// Makes the switch lose frames from now on: each rule is one of nftables' family `bridge`, with its `drop`. They replace those before.
    ///
    /// # Errors
    /// When `nft` does not understand a rule.
    pub fn set_drops(&self, rules: &[String]) -> Result<()> {
        let chain =
            format!("chain forward {{ type filter hook forward priority 0; policy accept;\n{}\n}}", rules.join("\n"));
        let ruleset = format!("{DROPS} {{\n}}\ndelete {DROPS}\n{DROPS} {{\n{chain}\n}}\n");
        self.within(SWITCH, || run::run_with_input(Command::new("nft").args(["-f", "-"]), &ruleset))??;
        Ok(())
    }
}

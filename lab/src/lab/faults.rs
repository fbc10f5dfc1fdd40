//! Fault injection: orderly stop, power failure and restart of a host, signals to its programs, its
//! network link, and frames that the switch drops.

use super::Lab;
use crate::cluster::kubeadm::services;
use crate::cluster::{control_plane, network, pods};
use crate::topology::{CONTROL_PLANE, SWITCH};
use crate::{netns, process, run};
use anyhow::{Result, ensure};
use ferrolb_proto::wire::hello;
use rustix::process::Signal;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Maximum time of a connection to the API server.
const API_TIMEOUT: Duration = Duration::from_millis(200);
/// nftables table that drops frames on the switch.
const DROP_TABLE: &str = "table bridge drops";
/// UDP port of the speakers' second path (`--challenge-port`).
const CHALLENGE_PORT: u16 = 7473;

/// Returns the rule for [`Lab::set_drops`] that drops the hellos of all speakers.
#[must_use]
pub fn hello_drop() -> String {
    format!("ether type {:#x} drop", hello::ETHER_TYPE)
}

/// Returns the rule for [`Lab::set_drops`] that drops the datagrams between all speakers.
#[must_use]
pub fn datagram_drop() -> String {
    format!("udp dport {CHALLENGE_PORT} drop")
}

impl Lab {
    /// Stops the services of a node in a kubeadm cluster, as `poweroff` does before the power is
    /// off: the kubelet and all containers receive SIGTERM. The kernel of the node still replies.
    ///
    /// # Errors
    /// If the node is off.
    pub fn stop_services(&self, node: &str) -> Result<()> {
        services::stop(&self.state, node)
    }

    /// Sends a signal to a program on a node of a kubeadm cluster, such as `kubelet`.
    ///
    /// # Errors
    /// If no such program uses the network namespace of the node.
    pub fn signal_program(&self, node: &str, program: &str, signal: Signal) -> Result<()> {
        services::signal(&self.state, node, program, signal)
    }

    /// Powers a host off: its switch port goes down, every process on it and in its pods is killed,
    /// and its packet filter is emptied, like by a reboot. Kubernetes gets no notification.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn power_off(&self, node: &str) -> Result<()> {
        self.host(node)?;
        network::set_port(&self.state.name, node, false)?;
        let mut namespaces = vec![self.state.name.namespace(node)];
        namespaces.extend(
            pods::on_node(&self.state, node).iter().map(|pod| self.state.name.namespace(pod)),
        );
        process::kill(netns::pids(&namespaces).into_iter().map(|pid| (pid, None)))?;
        // Runs from outside of the machine, because a machine that is off runs nothing.
        self.within(node, || run::run(Command::new("nft").args(["flush", "ruleset"])))?.map(drop)
    }

    /// Powers a host on with all processes that ran on it: on a node, its kube-proxy, its speaker
    /// and its pods' web servers. The pods are Ready if they were, as a kubelet would report.
    ///
    /// # Errors
    /// If the host is on.
    pub fn power_on(&self, node: &str) -> Result<()> {
        self.host(node)?;
        let records = process::records(&self.state);
        let is_on_node =
            |launch: &process::Launch| launch.host == node || launch.node.as_deref() == Some(node);
        let node_records: Vec<_> =
            records.into_iter().filter(|record| is_on_node(&record.launch)).collect();
        ensure!(node_records.iter().all(|record| !record.is_alive()), "{node} is on");
        network::set_port(&self.state.name, node, true)?;
        node_records
            .into_iter()
            .try_for_each(|record| process::start(&self.state, record.launch).map(drop))?;
        let pods = pods::on_node(&self.state, node);
        if pods.is_empty() {
            return Ok(());
        }
        let api = SocketAddr::new(self.address(CONTROL_PLANE)?, control_plane::API_PORT);
        let is_reachable =
            self.within(CONTROL_PLANE, || TcpStream::connect_timeout(&api, API_TIMEOUT))?.is_ok();
        // Without an API server, the controller restores the pods later.
        if !is_reachable {
            return Ok(());
        }
        self.api(async |client| pods::unmark(&client, &pods).await)
    }

    /// Takes a host's network link down or up; its processes keep running.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn set_link(&self, host: &str, up: bool) -> Result<()> {
        self.host(host)?;
        network::set_port(&self.state.name, host, up)
    }

    /// Makes the switch drop frames from now on. Each rule is in the syntax of nftables' family
    /// `bridge` and contains the verdict `drop`. The rules replace those of earlier calls.
    ///
    /// # Errors
    /// If `nft` rejects a rule.
    pub fn set_drops(&self, rules: &[String]) -> Result<()> {
        let chain = format!(
            "chain forward {{ type filter hook forward priority 0; policy accept;\n{}\n}}",
            rules.join("\n")
        );
        let ruleset =
            format!("{DROP_TABLE} {{\n}}\ndelete {DROP_TABLE}\n{DROP_TABLE} {{\n{chain}\n}}\n");
        self.within(SWITCH, || {
            run::run_with_input(Command::new("nft").args(["-f", "-"]), &ruleset)
        })??;
        Ok(())
    }
}

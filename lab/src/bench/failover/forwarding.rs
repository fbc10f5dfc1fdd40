//! Check that the kube-proxy of every node is up to date. Otherwise a node could take an address
//! before its kube-proxy has processed the Service or the removed pod, and the value would include
//! kube-proxy's delay.

use super::setup::ServiceSet;
use crate::topology::{CLIENT, Host, node_index};
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Maximum time for a kube-proxy to process a change, on a busy machine.
const FORWARDS_MAX: Duration = Duration::from_secs(30);
/// Number of consecutive pages from other pods that prove that kube-proxy no longer uses the
/// removed pod. kube-proxy selects one of three pods at random.
const PAGES: usize = 20;

/// Waits until every node forwards traffic for the first Service of `service_set`, and no node
/// forwards it to the pod `removed_pod`.
pub(super) fn wait_for(lab: &Lab, service_set: &ServiceSet, removed_pod: &str) -> Result<()> {
    let name = service_set.names.first().context("the set has no Service")?;
    let service: Value =
        serde_json::from_str(&lab.kubectl(&["get", "service", name, "-o", "json"])?)?;
    let port =
        service["spec"]["ports"][0]["nodePort"].as_u64().context("the Service has no node port")?;
    for node in lab.nodes() {
        let host = Host::node(node_index(&node).context("the node is not a host of the lab")?);
        for address in [IpAddr::V4(host.v4()), IpAddr::V6(host.v6())] {
            let server = SocketAddr::new(address, u16::try_from(port)?);
            wait::until(
                &format!("{node} forwards from {address} to all pods but {removed_pod}"),
                FORWARDS_MAX,
                || {
                    for _ in 0..PAGES {
                        let pod = lab
                            .http_get(CLIENT, server, "/")?
                            .pod()
                            .context("the page names no pod")?;
                        ensure!(
                            pod != removed_pod,
                            "{pod} still serves, although it was removed from the Service"
                        );
                    }
                    Ok(Some(()))
                },
            )?;
        }
    }
    Ok(())
}

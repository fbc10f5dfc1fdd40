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

/// Maximum time of a kube-proxy on a busy machine.
const FORWARDS_MAX: Duration = Duration::from_secs(30);
/// Number of consecutive pages without one from the removed pod that prove its removal: kube-proxy
/// selects one of three pods at random.
const PAGES: usize = 20;

/// Waits until every node forwards for the first of the Services, and none forwards to the pod
/// `without`.
pub(super) fn wait_for(lab: &Lab, served: &ServiceSet, without: &str) -> Result<()> {
    let name = served.names.first().context("a Service")?;
    let service: Value =
        serde_json::from_str(&lab.kubectl(&["get", "service", name, "-o", "json"])?)?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().context("a node port")?;
    for node in lab.nodes() {
        let host = Host::node(node_index(&node).context("a node of the lab")?);
        for address in [IpAddr::V4(host.v4()), IpAddr::V6(host.v6())] {
            let server = SocketAddr::new(address, u16::try_from(port)?);
            wait::until(
                &format!("{node} forwards from {address} to the right pods"),
                FORWARDS_MAX,
                || {
                    for _ in 0..PAGES {
                        let pod = lab.http_get(CLIENT, server, "/")?.pod().context("no page")?;
                        ensure!(pod != without, "{pod} still serves");
                    }
                    Ok(Some(()))
                },
            )?;
        }
    }
    Ok(())
}

//! The command `status`: speakers, controllers, pools and Services. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ferrolb_controller_core::state::{PoolCounts, PoolRow, ServiceRow, State};
use ferrolb_proto::api::KubeProxyState;
use ferrolb_proto::facts::Speaker;
use serde::Serialize;

use crate::installation::Installation;
use crate::table::{GOOD, PROBLEM, WARNING, age, table};

/// The status of an installation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    controllers: Option<Controllers>,
    nodes: Vec<NodeRow>,
    pools: Vec<PoolRow>,
    services: Vec<ServiceRow>,
}

#[derive(Debug, Serialize)]
struct Controllers {
    ready: i32,
    wanted: i32,
    leader: Option<String>,
}

/// A node and its speaker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    node: String,
    /// True if a speaker runs on the node, and has written a SpeakerStatus.
    has_speaker: bool,
    /// True if the SpeakerStatus is that of a speaker that does not run any more.
    stopped: bool,
    /// Number of addresses that the node announces on layer 2.
    owns: usize,
    /// The nodes with whose speakers the node is in contact.
    contacts: BTreeSet<String>,
    kube_proxy: String,
    /// Established BGP sessions, and all; `None` without gobgpd.
    bgp: Option<[usize; 2]>,
    draining: bool,
}

impl Status {
    /// Collects the status.
    #[must_use]
    pub fn new(installation: &Installation, state: &State) -> Self {
        let controllers = installation.controllers.map(|[ready, wanted]| Controllers {
            ready,
            wanted,
            leader: installation.leader.clone(),
        });
        let speakers: BTreeMap<&str, _> =
            state.speakers().map(|speaker| (&*speaker.node, speaker)).collect();
        let stale = state.stale();
        let row = |node: &str| {
            let stopped = stale.contains(node);
            let running = speakers.get(node).filter(|_| !stopped).copied();
            NodeRow { stopped, ..NodeRow::new(node, running) }
        };
        Self {
            controllers,
            nodes: state.nodes().map(|node| row(&node.name)).collect(),
            pools: state.pool_rows(),
            services: state.service_rows(),
        }
    }

    /// Returns the status as tables. `now` is the present time, in seconds since 1970.
    #[must_use]
    pub fn text(&self, is_wide: bool, now: i64) -> String {
        let mut text = self.summary();
        text.push('\n');
        text.push_str(&self.node_table());
        text.push('\n');
        text.push_str(&self.pool_table());
        text.push('\n');
        text.push_str(&self.service_table(is_wide, now));
        text
    }

    fn summary(&self) -> String {
        let speakers = self.nodes.iter().filter(|row| row.has_speaker).count();
        let served = || self.services.iter().filter(|row| row.served);
        let announced = served().filter(|row| row.announced).count();
        let warned = served().filter(|row| row.announced && !row.warnings.is_empty()).count();
        let mut text = format!("speakers {speakers} of {}", self.nodes.len());
        if let Some(Controllers { ready, wanted, leader }) = &self.controllers {
            let leader = leader.as_deref().unwrap_or("none");
            _ = write!(text, "   controllers {ready} of {wanted}, leader {leader}");
        }
        _ = write!(text, "   Services {announced} of {} announced", served().count());
        if warned > 0 {
            _ = write!(text, ", {warned} with a warning");
        }
        text.push('\n');
        text
    }

    fn node_table(&self) -> String {
        let row = |row: &NodeRow| {
            let contacts: Vec<_> = row.contacts.iter().map(String::as_str).collect();
            let speaker = match (row.has_speaker, row.stopped) {
                (true, _) => "✓ yes",
                (false, true) => "✗ stopped",
                (false, false) => "✗ none",
            };
            [
                row.node.clone(),
                speaker.to_owned(),
                row.owns.to_string(),
                contacts.join(","),
                row.kube_proxy.clone(),
                row.bgp.map_or_else(String::new, |[up, all]| format!("{up} of {all}")),
                if row.draining { "yes".to_owned() } else { String::new() },
            ]
        };
        let columns = ["NODE", "SPEAKER", "OWNS", "CONTACTS", "KUBE-PROXY", "BGP", "DRAIN"];
        table(columns, self.nodes.iter().map(row))
    }

    fn pool_table(&self) -> String {
        let free = |PoolCounts { free, total, .. }| {
            if total == 0 { String::new() } else { format!("{free} of {total}") }
        };
        let row = |row: &PoolRow| {
            let name =
                if row.missing { format!("{PROBLEM} {}", row.pool) } else { row.pool.clone() };
            let [v4, v6] = [row.v4, row.v6].map(free);
            [
                name,
                row.services.to_string(),
                if row.missing { "missing".to_owned() } else { v4 },
                v6,
            ]
        };
        table(["POOL", "SERVICES", "FREE IPV4", "FREE IPV6"], self.pools.iter().map(row))
    }

    fn service_table(&self, is_wide: bool, now: i64) -> String {
        let row = |row: &ServiceRow| {
            let addresses: Vec<_> = row.addresses.iter().map(ToString::to_string).collect();
            [
                row.service.to_string(),
                addresses.join(","),
                row.nodes.join(","),
                age(row.since, now),
                format!("{} {}", sign(row), row.reason),
            ]
        };
        let columns = ["SERVICE", "ADDRESS", "NODE", "SINCE", "REASON"];
        if !is_wide {
            return table(columns, self.services.iter().map(row));
        }
        let wide = |service: &ServiceRow| {
            let [name, address, node, since, reason] = row(service);
            let pool = service.pool.clone().unwrap_or_default();
            [name, address, pool, node, since, reason]
        };
        let columns = ["SERVICE", "ADDRESS", "POOL", "NODE", "SINCE", "REASON"];
        table(columns, self.services.iter().map(wide))
    }
}

/// Returns the mark of a Service: announced, with a warning, not announced, or of another load
/// balancer.
fn sign(row: &ServiceRow) -> char {
    match (row.served, row.announced) {
        (false, _) => '-',
        (true, false) => PROBLEM,
        (true, true) if row.warnings.is_empty() => GOOD,
        (true, true) => WARNING,
    }
}

impl NodeRow {
    fn new(node: &str, speaker: Option<&Speaker>) -> Self {
        let interfaces = speaker.map(|speaker| &*speaker.interfaces).unwrap_or_default();
        let owned: BTreeSet<_> = interfaces.iter().flat_map(|it| &*it.addresses).collect();
        let contacts = interfaces.iter().flat_map(|it| &*it.hello_senders);
        let kube_proxy = speaker.and_then(|speaker| speaker.kube_proxy.as_ref());
        let state = |state: KubeProxyState| format!("{state:?}");
        let bgp = speaker.and_then(|speaker| speaker.bgp.as_ref());
        let established = |sessions: &[ferrolb_proto::facts::SpeakerSession]| {
            [sessions.iter().filter(|it| it.established).count(), sessions.len()]
        };
        Self {
            node: node.to_owned(),
            has_speaker: speaker.is_some(),
            stopped: false,
            owns: owned.len(),
            contacts: contacts.map(ToString::to_string).collect(),
            kube_proxy: kube_proxy.map_or_else(String::new, |it| state(it.state)),
            bgp: bgp.map(|sessions| established(sessions)),
            draining: speaker.is_some_and(|speaker| speaker.draining),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::golden;
    use crate::why::key;

    fn node(node: &str, bgp: Option<[usize; 2]>) -> NodeRow {
        NodeRow {
            node: node.to_owned(),
            has_speaker: bgp.is_some(),
            stopped: false,
            owns: bgp.map_or(0, |[up, _]| up),
            contacts: bgp.iter().flat_map(|_| ["node2", "node3"]).map(str::to_owned).collect(),
            kube_proxy: bgp.map_or_else(String::new, |_| "Healthy".to_owned()),
            bgp,
            draining: bgp.is_some(),
        }
    }

    fn service(name: &str, reason: &str, nodes: &[&str]) -> ServiceRow {
        ServiceRow {
            service: key(name, ""),
            addresses: vec!["192.168.1.240".parse().unwrap(), "fd00::1".parse().unwrap()],
            pool: (!nodes.is_empty()).then(|| "lan".to_owned()),
            nodes: nodes.iter().map(|it| (*it).to_owned()).collect(),
            since: Some(1_000),
            reason: reason.to_owned(),
            announced: !nodes.is_empty(),
            served: true,
            contested: false,
            warnings: Vec::new(),
            unchecked: None,
        }
    }

    #[test]
    fn the_tables_equal_the_golden_file() {
        let counts = |used: u64, total| PoolCounts { used, free: total - u128::from(used), total };
        let pool = |pool: &str, v4, v6| PoolRow {
            pool: pool.to_owned(),
            services: 2,
            missing: pool == "old",
            v4,
            v6,
        };
        let status = Status {
            controllers: Some(Controllers { ready: 2, wanted: 2, leader: Some("c-1".to_owned()) }),
            nodes: vec![
                node("node1", Some([1, 2])),
                node("node2", None),
                NodeRow { stopped: true, ..node("node3", None) },
            ],
            pools: vec![
                pool("lan", counts(2, 16), counts(0, 1 << 64)),
                pool("old", counts(0, 0), counts(0, 0)),
                pool("six", counts(0, 0), counts(1, 256)),
            ],
            services: vec![
                service("default/web", "Announced", &["node1", "node2"]),
                ServiceRow {
                    warnings: vec!["x".to_owned()],
                    ..service("default/old", "PoolMissing", &["node1"])
                },
                service("shop/db", "NoEndpoints", &[]),
                ServiceRow { served: false, ..service("shop/other", "OtherClass", &[]) },
            ],
        };
        let (narrow, wide) = (status.text(false, 1_090), status.text(true, 1_090));
        golden("golden/status.txt", &format!("{narrow}\n{wide}"));
    }
}

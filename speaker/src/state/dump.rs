//! The state as JSON, for `/state`. Pure; a person reads it, so names and addresses stand for objects.

use serde_json::{Value, json};

use super::State;

impl State {
    /// What matters of the state.
    #[must_use]
    pub fn dump(&self) -> Value {
        let services = self.services.iter().map(|(key, service)| {
            json!({"service": key.to_string(), "addresses": service.assigned, "policy": format!("{:?}", service.policy)})
        });
        let nodes = self.nodes.values().map(|node| {
            json!({"name": node.name, "internal": node.internal, "ready": node.ready, "cordoned": node.cordoned,
                "unreachable": node.unreachable, "excluded": node.excluded,
                "drain": node.drain.map(|why| format!("{why:?}"))})
        });
        let pools = self.pools.values().map(|pool| {
            let ranges: Vec<_> = pool.ranges.iter().map(|range| range.to_string()).collect();
            json!({"name": pool.name, "ranges": ranges, "problem": pool.problem.as_ref().map(|problem| problem.to_string())})
        });
        let links = self.links.iter().flat_map(|links| links.values()).map(|link| {
            let report = self.reports.get(&link.index);
            let failure = self.failures.get(&link.index).map(|failure| failure.count);
            json!({"index": link.index, "name": link.name, "mac": link.mac.to_string(), "up": link.up,
                "enslaved": link.enslaved, "addresses": link.addresses, "failures": failure,
                "heard": report.map(|report| &report.heard), "held": report.map(|report| &report.held[..])})
        });
        let failing = self.failing.iter().map(
            |(id, why)| json!({"service": id.service.to_string(), "endpoint": id.endpoint.to_string(), "why": why}),
        );
        json!({
            "node": self.config.node,
            "waitsFor": self.waits_for(),
            "leaving": self.leaving,
            "dataPath": json!({"state": self.data_path.state, "message": self.data_path.message, "ineligible": self.data_path.ineligible}),
            "keyIds": self.keys.ids(),
            "services": services.collect::<Vec<_>>(),
            "failing": failing.collect::<Vec<_>>(),
            "answered": self.answered,
            "endpointSlices": self.slices.values().count(),
            "nodes": nodes.collect::<Vec<_>>(),
            "pools": pools.collect::<Vec<_>>(),
            "advertisements": self.advertisements.values().map(|ad| json!({"name": ad.name, "problem": ad.problem})).collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
        })
    }
}

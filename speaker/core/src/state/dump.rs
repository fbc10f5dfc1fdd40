//! Dump of the state as JSON, for `/state`. Pure. People read the dump, so objects appear as names
//! and addresses.

use serde_json::{Value, json};

use super::State;

impl State {
    /// Returns the parts of the state that matter for debugging.
    #[must_use]
    pub fn dump(&self) -> Value {
        let services = self.services.iter().map(|(key, service)| {
            json!({"service": key.to_string(), "addresses": service.assigned, "policy": format!("{:?}", service.policy)})
        });
        let nodes = self.nodes.values().map(|node| {
            json!({"name": *node.name, "internal": node.internal_addresses, "ready": node.ready, "cordoned": node.cordoned,
                "unreachable": node.unreachable, "excluded": node.excluded,
                "drain": node.drain.map(|why| format!("{why:?}"))})
        });
        let pools = self.pools.values().map(|pool| {
            let ranges: Vec<_> = pool.ranges.iter().map(|range| range.to_string()).collect();
            json!({"name": pool.name, "ranges": ranges, "problem": pool.problem.as_ref().map(|problem| problem.to_string())})
        });
        let links = self.all_links().map(|link| {
            let report = self.reports.get(&link.index);
            let failure = self.link_failures.get(&link.index).map(|failure| failure.count);
            json!({"index": link.index, "name": link.name, "mac": link.mac.to_string(), "up": link.up,
                "enslaved": link.enslaved, "addresses": link.addresses, "failures": failure,
                "heard": report.map(|report| &report.speakers), "held": report.map(|report| report.owned.keys().collect::<Vec<_>>())})
        });
        let failing = self.failing_endpoints.iter().map(
            |(id, why)| json!({"service": id.service.to_string(), "endpoint": id.endpoint.to_string(), "why": why}),
        );
        json!({
            "node": self.config.node,
            "waitsFor": self.missing_input(),
            "leaving": self.leaving,
            "dataPath": json!({"state": self.proxy_health.state, "message": self.proxy_health.message, "ineligible": self.proxy_health.ineligible}),
            "keyIds": self.keys.ids(),
            "services": services.collect::<Vec<_>>(),
            "failing": failing.collect::<Vec<_>>(),
            "endpointSlices": self.services.slice_count(),
            "nodes": nodes.collect::<Vec<_>>(),
            "pools": pools.collect::<Vec<_>>(),
            "advertisements": self.advertisements.values().map(|ad| json!({"name": ad.name, "problem": ad.problem.as_ref().map(|problem| problem.to_string())})).collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
        })
    }
}

//! Dump of the desired configuration as JSON, for `/state`. Pure.

use ferrolb_core::election::Unit;
use serde_json::{Value, json};

use super::{Desired, LinkPlan, Memo, with_addresses};
use crate::state::State;

impl Desired {
    /// Returns the parts of the desired configuration that matter for debugging, with how this node
    /// can serve each address. `memo` is that of the plan.
    #[must_use]
    pub fn dump(&self, state: &State, memo: &Memo) -> Value {
        let links = self.links.iter().map(|(index, LinkPlan { name, mac, selected, config, ndp_addresses })| {
            json!({"index": index, "name": name, "mac": mac.to_string(), "selected": selected, "leaving": config.leaving,
                "says": {"draining": config.node_flags.draining, "unhealthy": config.node_flags.unhealthy, "checked": config.node_flags.health_checked},
                "listenedFor": ndp_addresses.as_ref(),
                "receivedRanges": config.received_ranges.as_deref().map(|ranges| ranges.iter().map(ToString::to_string).collect::<Vec<_>>()),
                "units": config.units.values().map(|election_unit| unit(election_unit, &state.config.node)).collect::<Vec<_>>()})
        });
        json!({
            "notReady": self.not_ready_reason,
            "draining": self.drain_reason,
            "kubeProxy": {"servers": self.proxy_targets.servers, "healthCheckNodePorts": self.proxy_targets.health_check_node_ports},
            "excludeLabelIgnored": self.exclusion_ignored,
            "addresses": memo.addresses.serving_names(),
            "links": links.collect::<Vec<_>>(),
            "healthChecks": {"targets": self.probes.targets.len(), "refused": self.probes.disallowed},
            "status": with_addresses(&self.status, &self.owned),
        })
    }
}

fn unit(unit: &Unit, node: &str) -> Value {
    let own = unit.own_candidate(node);
    let others = unit.candidates.iter().filter(|other| *other.node != *node);
    let mut candidates: Vec<_> = others.chain(own).collect();
    candidates.sort_by_cached_key(|candidate| (unit.order(&candidate.node), &candidate.node));
    let candidates = candidates.into_iter().map(
        |c| json!({"node": *c.node, "cordoned": c.cordoned, "terminating": c.terminating, "preference": c.preference}),
    );
    json!({"address": unit.address, "candidates": candidates.collect::<Vec<_>>(), "servesHere": unit.can_serve_here,
        "failing": unit.failing})
}

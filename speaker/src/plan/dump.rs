//! What is wanted as JSON, for `/state`. Pure.

use std::collections::BTreeMap;

use ferrolb_proto::election::Unit;
use serde_json::{Value, json};

use super::{Desired, LinkOrder, units};
use crate::state::State;

impl Desired {
    /// What matters of it, with what `state` makes of each Service on this node.
    #[must_use]
    pub fn dump(&self, state: &State) -> Value {
        let verdicts = if state.waits_for().is_none() { units::verdicts(state) } else { BTreeMap::new() };
        let verdicts: BTreeMap<_, _> = verdicts.into_iter().map(|(key, is)| (key.to_string(), is.name())).collect();
        let links = self.links.iter().map(|(index, LinkOrder { name, mac, selected, order, listened_for })| {
            json!({"index": index, "name": name, "mac": mac.to_string(), "selected": selected, "leaving": order.leaving,
                "says": {"draining": order.says.draining, "unhealthy": order.says.unhealthy, "checked": order.says.checked},
                "listenedFor": listened_for.as_ref(),
                "units": order.units.iter().map(|it| unit(it)).collect::<Vec<_>>()})
        });
        json!({
            "notReady": self.not_ready,
            "draining": self.draining,
            "kubeProxy": {"servers": self.questions.servers, "healthCheckNodePorts": self.questions.witnesses},
            "excludeLabelIgnored": self.exclusion_ignored,
            "verdicts": verdicts,
            "links": links.collect::<Vec<_>>(),
            "doubted": self.doubted,
            "healthChecks": {"targets": self.probes.targets.len(), "refused": self.probes.refused},
            "status": self.status,
        })
    }
}

fn unit(unit: &Unit) -> Value {
    let mut candidates: Vec<_> = unit.candidates.iter().collect();
    candidates.sort_by_key(|candidate| candidate.order);
    let candidates = candidates.into_iter().map(
        |c| json!({"node": *c.node, "cordoned": c.cordoned, "terminating": c.terminating, "preference": c.preference}),
    );
    json!({"addresses": unit.addresses, "candidates": candidates.collect::<Vec<_>>(), "servesHere": unit.serves_here,
        "failing": unit.failing})
}

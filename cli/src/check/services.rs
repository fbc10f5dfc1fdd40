//! The rule about Services that are not announced. Pure.

use std::collections::BTreeMap;

use super::facts::ClusterFacts;
use super::finding::{Code, Finding, Object};

/// Returns one finding for each reason.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let rows = facts.objects.iter().flat_map(|objects| &objects.rows);
    for row in rows.filter(|row| !row.announced) {
        reasons.entry(&row.reason).or_default().push(&row.service);
    }
    let finding = |(reason, services): (&str, Vec<&str>)| {
        let first = services.first().copied().unwrap_or_default();
        let text = format!(
            "Services without an announced address ({reason}): {}. See `kubectl ferrolb why {first}`",
            services.len()
        );
        Finding::new(Code::NotAnnounced, services.iter().map(|it| object(it)).collect(), text)
    };
    reasons.into_iter().map(finding).collect()
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let rows = facts.objects.as_ref().map(|objects| objects.rows.len()).unwrap_or_default();
    if rows == 0 { "none".to_owned() } else { format!("{rows} of {rows} announced") }
}

fn object(service: &str) -> Object {
    match service.split_once('/') {
        Some((namespace, name)) => Object::namespaced("Service", namespace, name),
        None => Object::cluster("Service", service),
    }
}

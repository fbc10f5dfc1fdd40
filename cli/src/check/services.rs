//! Rules about Services that are not announced, or are announced with a warning. Pure.

use std::collections::BTreeMap;

use ferrolb_controller_core::state::ServiceRow;
use ferrolb_proto::facts::Key;

use super::facts::ClusterFacts;
use super::finding::{Code, Finding, Object};

/// Returns one finding for each reason, and one for the warnings.
#[must_use]
pub fn findings(facts: &ClusterFacts) -> Vec<Finding> {
    let mut reasons: BTreeMap<&str, Vec<&Key>> = BTreeMap::new();
    for row in served(facts).filter(|row| !row.announced) {
        reasons.entry(&row.reason).or_default().push(&row.service);
    }
    let finding = |(reason, services): (&str, Vec<&Key>)| {
        let first = services.first().map(ToString::to_string).unwrap_or_default();
        let text = format!(
            "Services without an announced address ({reason}): {}. See `kubectl ferrolb why {first}`",
            services.len()
        );
        Finding::new(Code::NotAnnounced, services.iter().map(|it| object(it)).collect(), text)
    };
    reasons.into_iter().map(finding).chain(warned(facts)).chain(unchecked(facts)).collect()
}

fn served(facts: &ClusterFacts) -> impl Iterator<Item = &ServiceRow> {
    let rows = facts.objects.iter().flat_map(|objects| &objects.rows);
    rows.filter(|row| row.served)
}

/// Returns the finding about announced Services with warnings. The first warning of a Service with
/// a contested status or a missing pool has a finding of its own, as has one about endpoints that
/// are not checked.
fn warned(facts: &ClusterFacts) -> Option<Finding> {
    let is_reported = |row: &ServiceRow| row.contested || row.reason == "PoolMissing";
    let first = |row: &ServiceRow| {
        let mut others = row.warnings.iter().skip(usize::from(is_reported(row)));
        others.find(|warning| Some(*warning) != row.unchecked.as_ref()).cloned()
    };
    let announced = served(facts).filter(|row| row.announced);
    let rows: Vec<_> = announced.filter_map(|row| Some((row, first(row)?))).collect();
    let (first, warning) = rows.first()?;
    let text = format!(
        "announced Services with a warning: {}. {}: {warning}. See `kubectl ferrolb why {}`",
        rows.len(),
        first.service,
        first.service
    );
    let objects = rows.iter().map(|(row, _)| object(&row.service)).collect();
    Some(Finding::new(Code::ServiceWarning, objects, text))
}

/// Returns the finding about Services with a health check and endpoints that are not checked.
fn unchecked(facts: &ClusterFacts) -> Option<Finding> {
    let rows: Vec<_> = served(facts).filter(|row| row.unchecked.is_some()).collect();
    let first = rows.first()?;
    let text = format!(
        "Services with a health check and unchecked endpoints: {}. {}: {}. See `kubectl ferrolb why \
         {}`",
        rows.len(),
        first.service,
        first.unchecked.as_deref()?,
        first.service
    );
    let objects = rows.iter().map(|row| object(&row.service)).collect();
    Some(Finding::new(Code::EndpointsUnchecked, objects, text))
}

/// Returns the line without findings.
#[must_use]
pub fn summary(facts: &ClusterFacts) -> String {
    let rows = served(facts).count();
    let others = facts.objects.iter().flat_map(|it| &it.rows).filter(|row| !row.served).count();
    let others =
        if others == 0 { String::new() } else { format!(", {others} of other load balancers") };
    if rows == 0 { format!("none{others}") } else { format!("{rows} of {rows} announced{others}") }
}

fn object(service: &Key) -> Object {
    Object::namespaced("Service", service.namespace(), service.name())
}

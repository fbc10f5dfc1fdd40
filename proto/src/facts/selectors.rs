//! Label selectors as several kinds of ours have them: a list whose entries are alternatives.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

/// Whether one of these matches.
pub(super) fn any(selectors: &[Selector], labels: &BTreeMap<String, String>) -> bool {
    selectors.iter().any(|selector| selector.matches(labels))
}

/// Reads the selectors of a field.
///
/// # Errors
/// What is wrong with one of them, with the field's name.
pub(super) fn read(field: &str, selectors: Vec<LabelSelector>) -> Result<Vec<Selector>, Box<str>> {
    let read = selectors.into_iter().map(Selector::try_from).collect::<Result<_, _>>();
    read.map_err(|error| format!("spec.{field}: {error}").into())
}

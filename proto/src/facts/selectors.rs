//! Label selectors in custom resources. A field of FerroLB's resources holds a list of selectors,
//! of which at least one must match.
//!
//! A selector is valid if `metav1.LabelSelectorAsSelector` accepts it. FerroLB's CRDs have the same
//! rules (`api::selectors`), but the cluster may have MetalLB's CRDs. The conversion in the crate
//! `kube` is less strict: it accepts `NotIn` without values, which would select everything.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::core::{Selector, SelectorExt};

use super::address_request::truncated;
use crate::api::{LABEL_PREFIX_MAX, LABEL_VALUE_MAX};

/// The reason why Kubernetes rejects a selector.
#[derive(Debug, thiserror::Error)]
enum SelectorProblem {
    #[error(
        "{0:?} is not a valid label key: write [prefix/]name, the prefix as a DNS subdomain in lower case"
    )]
    Key(String),
    #[error(
        "{1:?} is not a valid value of label {0}: use at most 63 letters, digits, '-', '_' and '.'"
    )]
    Value(String, String),
    #[error("operator {1} of key {0} has no values: write at least one, or remove the expression")]
    NoValues(String, String),
    #[error("operator {1} of key {0} has values: remove them")]
    Values(String, String),
    #[error("operator {1:?} of key {0}: use In, NotIn, Exists or DoesNotExist")]
    Operator(String, String),
}

/// Returns whether at least one of the selectors matches these labels.
pub(super) fn any_matches(selectors: &[Selector], labels: &BTreeMap<String, String>) -> bool {
    selectors.iter().any(|selector| selector.matches(labels))
}

/// Returns whether a selector matches these labels. One that Kubernetes rejects matches nothing.
#[must_use]
pub fn selector_matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let decoded = decode("selector", vec![selector.clone()]);
    decoded.is_ok_and(|selectors| any_matches(&selectors, labels))
}

/// Decodes the selectors of a field.
///
/// # Errors
/// The first problem, with the name of the field.
pub(super) fn decode(
    field: &str,
    selectors: Vec<LabelSelector>,
) -> Result<Vec<Selector>, Box<str>> {
    let read = |selector: LabelSelector| -> Result<Selector, Box<str>> {
        check(&selector).map_err(|problem| format!("spec.{field}: {problem}"))?;
        Selector::try_from(selector).map_err(|error| format!("spec.{field}: {error}").into())
    };
    selectors.into_iter().map(read).collect()
}

fn check(selector: &LabelSelector) -> Result<(), SelectorProblem> {
    for (key, value) in selector.match_labels.iter().flatten() {
        check_key(key)?;
        check_value(key, value)?;
    }
    selector.match_expressions.iter().flatten().try_for_each(check_expression)
}

fn check_expression(expression: &LabelSelectorRequirement) -> Result<(), SelectorProblem> {
    let LabelSelectorRequirement { key, operator, values } = expression;
    check_key(key)?;
    let values = values.as_deref().unwrap_or_default();
    let problem = match (operator.as_str(), values) {
        ("In" | "NotIn", []) => SelectorProblem::NoValues,
        ("In" | "NotIn", _) => return values.iter().try_for_each(|value| check_value(key, value)),
        ("Exists" | "DoesNotExist", []) => return Ok(()),
        ("Exists" | "DoesNotExist", _) => SelectorProblem::Values,
        _ => SelectorProblem::Operator,
    };
    Err(problem(truncated(key), truncated(operator)))
}

fn check_key(key: &str) -> Result<(), SelectorProblem> {
    let (prefix, name) =
        key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let valid = prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name);
    if valid { Ok(()) } else { Err(SelectorProblem::Key(truncated(key))) }
}

fn check_value(key: &str, value: &str) -> Result<(), SelectorProblem> {
    if is_label_value(value) {
        Ok(())
    } else {
        Err(SelectorProblem::Value(truncated(key), truncated(value)))
    }
}

/// Returns whether a text is a valid label value. A value that is not empty is also a valid name in
/// a label's key.
fn is_label_value(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.is_empty()
        || text.len() <= LABEL_VALUE_MAX
            && text.chars().all(plain)
            && text.starts_with(ends)
            && text.ends_with(ends)
}

/// Returns whether a text is a DNS subdomain (RFC 1123) as Kubernetes defines it: only the whole
/// text has a length limit, not its parts.
fn is_subdomain(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(letter)
            && part.ends_with(letter)
            && part.chars().all(|c| letter(c) || c == '-')
    };
    text.len() <= LABEL_PREFIX_MAX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problem(selector: Value) -> Option<String> {
        let selector = serde_json::from_value(selector).expect("a selector");
        decode("nodeSelectors", vec![selector]).err().map(Into::into)
    }

    fn expression(key: &str, operator: &str, values: &Value) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn selectors_are_valid_as_in_kubernetes() {
        let long = "x".repeat(63);
        let prefix = format!("{0}.{0}.{0}.{1}", &long, "x".repeat(61));
        let valid = [
            json!({}),
            json!({"matchLabels": {"a": "", "example.com/a": "b", "A_b.C-1": "1"}}),
            expression("a", "In", &json!(["b", ""])),
            expression("a", "NotIn", &json!(["b"])),
            expression("a", "Exists", &json!([])),
            expression("a", "DoesNotExist", &Value::Null),
            expression(&format!("{prefix}/{long}"), "In", &json!([long])),
        ];
        for selector in valid {
            assert_eq!(problem(selector.clone()), None, "{selector} is valid");
        }
        let invalid = [
            (expression("a", "In", &json!([])), "operator In of key a has no values"),
            (expression("a", "NotIn", &json!([])), "operator NotIn of key a has no values"),
            (expression("a", "NotIn", &Value::Null), "operator NotIn of key a has no values"),
            (expression("a", "Exists", &json!(["b"])), "operator Exists of key a has values"),
            (
                expression("a", "DoesNotExist", &json!(["b"])),
                "operator DoesNotExist of key a has values",
            ),
            (expression("a", "Near", &json!(["b"])), "operator \"Near\" of key a"),
            (expression("", "Exists", &Value::Null), "\"\" is not a valid label key"),
            (expression("a b", "Exists", &Value::Null), "\"a b\" is not a valid label key"),
            (expression("/a", "Exists", &Value::Null), "\"/a\" is not a valid label key"),
            (expression("x/", "Exists", &Value::Null), "\"x/\" is not a valid label key"),
            (expression("x/y/a", "Exists", &Value::Null), "\"x/y/a\" is not a valid label key"),
            (expression("Example.com/a", "Exists", &Value::Null), "is not a valid label key"),
            (expression("example..com/a", "Exists", &Value::Null), "is not a valid label key"),
            (
                expression(&format!("{prefix}x/a"), "Exists", &Value::Null),
                "is not a valid label key",
            ),
            (expression(&format!("{long}x"), "Exists", &Value::Null), "is not a valid label key"),
            (expression("a", "In", &json!(["b", "-c"])), "\"-c\" is not a valid value of label a"),
            (json!({"matchLabels": {"a": "b c"}}), "\"b c\" is not a valid value of label a"),
            (json!({"matchLabels": {"a": format!("{long}x")}}), "is not a valid value of label a"),
            (json!({"matchLabels": {"-a": "b"}}), "\"-a\" is not a valid label key"),
        ];
        for (selector, why) in invalid {
            let problem = problem(selector.clone()).unwrap_or_default();
            assert!(
                problem.starts_with("spec.nodeSelectors: ") && problem.contains(why),
                "the problem of {selector} names the field and contains {why:?}: {problem:?}"
            );
        }
    }

    #[test]
    fn a_selector_that_kubernetes_rejects_matches_nothing() {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        for (selector, expect) in [
            (json!({}), true),
            (json!({"matchLabels": {"a": "b"}}), true),
            (json!({"matchLabels": {"a": "c"}}), false),
            (expression("a", "In", &json!(["b"])), true),
            (expression("a", "NotIn", &json!(["b"])), false),
            (expression("c", "NotIn", &json!(["b"])), true),
            (expression("a", "Exists", &Value::Null), true),
            (expression("a", "DoesNotExist", &Value::Null), false),
            (expression("c", "NotIn", &json!([])), false),
        ] {
            let read = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(selector_matches(&read, &labels), expect, "{selector}");
        }
    }

    #[test]
    fn a_problem_truncates_a_long_text() {
        let problem =
            problem(expression(&"é".repeat(100_000), "Exists", &Value::Null)).unwrap_or_default();
        assert!(problem.len() < 1_000, "the message has {} bytes", problem.len());
    }
}

//! The CRD schema of label selectors. Kubernetes' own schema has no validation rules, so the API
//! server would accept selectors that match nothing or everything.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The most bytes of a label's value, and of the name in its key.
pub(crate) const LABEL_VALUE_MAX: usize = 63;
/// The most bytes of the prefix of a label's key.
pub(crate) const LABEL_PREFIX_MAX: usize = 253;
/// The most selectors of a field.
const SELECTORS_MAX: usize = 64;
/// The most expressions, and the most labels, of a selector.
const REQUIREMENTS_MAX: usize = 64;
/// The most values of an expression: enough for a list of all node names.
const VALUES_MAX: usize = 4096;

/// Pattern of the optional prefix of a label's key, with its slash. The pattern does not limit the
/// length of the prefix.
const PREFIX: &str = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?";
/// Pattern of a label's value that is not empty, or of the name in its key.
const NAME: &str = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?";

/// Returns the schema of a list of selectors, of which at least one must match.
pub(super) fn selector_list_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": SELECTORS_MAX, "items": selector_schema(generator)})
}

/// Returns the schema of one selector, with the rules of `metav1.LabelSelectorAsSelector`.
pub(super) fn selector_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "A label selector. All of its labels and expressions must match; an empty one selects everything.",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels that an object must have, with their values.",
                "maxProperties": REQUIREMENTS_MAX,
                "additionalProperties": value(),
                "x-kubernetes-validations": [{
                    "rule": format!("self.all(key, key.matches(r'^{PREFIX}{NAME}$') && key.indexOf('/') <= {LABEL_PREFIX_MAX})"),
                    "message": "must have label keys of the form [prefix/]name",
                }],
            },
            "matchExpressions": {
                "type": "array",
                "description": "Requirements on the labels of an object.",
                "maxItems": REQUIREMENTS_MAX,
                "items": expression(),
            },
        },
    })
}

fn expression() -> Value {
    json!({
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": {
                "type": "string",
                "description": "The key of a label.",
                "maxLength": LABEL_PREFIX_MAX + 1 + LABEL_VALUE_MAX,
                "pattern": format!("^{PREFIX}{NAME}$"),
                "x-kubernetes-validations": [{
                    "rule": format!("self.indexOf('/') <= {LABEL_PREFIX_MAX}"),
                    "message": format!("must have a prefix of at most {LABEL_PREFIX_MAX} characters"),
                }],
            },
            "operator": {
                "type": "string",
                "description": "Relation between the label and the values.",
                "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
            },
            "values": {
                "type": "array",
                "description": "Values of the label: at least one for In and NotIn, none for Exists and DoesNotExist.",
                "maxItems": VALUES_MAX,
                "items": value(),
            },
        },
        "x-kubernetes-validations": [{
            "rule": "self.operator in ['In', 'NotIn'] == (has(self.values) && self.values.size() > 0)",
            "message": "must have values for In and NotIn, and none for Exists and DoesNotExist",
        }],
    })
}

fn value() -> Value {
    json!({"type": "string", "maxLength": LABEL_VALUE_MAX, "pattern": format!("^({NAME})?$")})
}

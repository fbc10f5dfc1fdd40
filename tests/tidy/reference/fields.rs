//! The fields of an OpenAPI schema as rows of a table, and the messages of its validation rules.

use serde_json::Value;

use crate::generated::{code, one_line};

/// A schema that many fields have, which the page describes once: its name and its section.
pub(super) struct SharedType {
    /// Properties by which the schema is recognized.
    properties: &'static [&'static str],
    name: &'static str,
    section: &'static str,
}

pub(super) const LABEL_SELECTOR: SharedType = SharedType {
    properties: &["matchExpressions", "matchLabels"],
    name: "label selector",
    section: "#label-selectors",
};
pub(super) const CONDITION: SharedType = SharedType {
    properties: &["lastTransitionTime", "observedGeneration", "reason"],
    name: "condition",
    section: "#conditions",
};

/// A field: its path, its type, and its description, which states the default.
pub(super) struct Field {
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) is_required: bool,
    pub(super) description: String,
}

/// The fields below a part of a schema.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) fields: Vec<Field>,
    /// Paths of fields with validation rules, and the messages of these rules.
    pub(super) messages: Vec<(String, String)>,
    /// Schemas of the fields with a [`SharedType`].
    pub(super) selectors: Vec<Value>,
    pub(super) conditions: Vec<Value>,
}

impl Fields {
    /// Returns the fields of `schema`, whose path is `path`.
    pub(super) fn of(path: &str, schema: &Value) -> Self {
        let mut found = Self::default();
        found.add_content(path, schema);
        found
    }

    fn add(&mut self, path: String, schema: &Value, is_required: bool) {
        let description = one_line(schema["description"].as_str().unwrap_or_default());
        let kind = kind(schema);
        self.fields.push(Field { path: path.clone(), kind, is_required, description });
        self.add_content(&path, schema);
    }

    /// Adds the rules and the inner fields of a schema.
    fn add_content(&mut self, path: &str, schema: &Value) {
        let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let messages = rules.filter_map(|rule| rule["message"].as_str());
        self.messages.extend(messages.map(|text| (path.to_owned(), one_line(text))));
        if let Some(items) = schema.get("items") {
            if is_shared(items, &LABEL_SELECTOR) {
                self.selectors.push(items.clone());
            } else if is_shared(items, &CONDITION) {
                self.conditions.push(items.clone());
            } else {
                self.add_content(&format!("{path}[]"), items);
            }
            return;
        }
        if let Some(values) = schema.get("additionalProperties") {
            self.add_content(&format!("{path}.*"), values);
        }
        if is_shared(schema, &LABEL_SELECTOR) && self.is_reference(path) {
            self.selectors.push(schema.clone());
            return;
        }
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.iter().any(|it| *it == name);
            self.add(format!("{path}.{name}"), inner, is_required);
        }
    }

    /// Returns whether a field with this path is already a row, which has a link to the section of
    /// its shared type. Otherwise, the fields of the shared type itself are requested.
    fn is_reference(&self, path: &str) -> bool {
        self.fields.iter().any(|field| field.path == path)
    }
}

fn is_shared(schema: &Value, shared: &SharedType) -> bool {
    shared.properties.iter().all(|name| schema["properties"].get(name).is_some())
}

/// Returns the type of a field, for people.
fn kind(schema: &Value) -> String {
    for shared in [LABEL_SELECTOR, CONDITION] {
        if is_shared(schema, &shared) {
            return format!("[{}]({})", shared.name, shared.section);
        }
        if is_shared(&schema["items"], &shared) {
            return format!("list of [{}s]({})", shared.name, shared.section);
        }
    }
    let values: Vec<_> = schema["enum"].as_array().into_iter().flatten().collect();
    if !values.is_empty() {
        let words = values.into_iter().filter_map(Value::as_str).map(code);
        return words.collect::<Vec<_>>().join(", ");
    }
    match schema["type"].as_str().unwrap_or_default() {
        "array" => format!("list of {}s", kind(&schema["items"])),
        "object" if schema.get("additionalProperties").is_some() => "map of strings".to_owned(),
        name => name.to_owned(),
    }
}

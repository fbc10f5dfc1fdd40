//! `docs/reference/api.md`: the fields, columns and validation messages of the custom resources.

use ferrolb_proto::api;
use serde_json::Value;

use super::fields::{Field, Fields};
use crate::generated::{self, code, head, paragraph, table};
use crate::tree::root;

const FILE: &str = "docs/reference/api.md";
const COMMAND: &str = "-p ferrolb-tidy reference";
const INTRODUCTION: &str = "\
This page lists the fields of FerroLB's custom resources, their columns in `kubectl get`, and the
messages with which the API server rejects an object. All are in the API group `ferrolb.io`.
FerroLB reads the objects in its own namespace, `ferrolb-system`. `kubectl explain fpool.spec`
prints the same descriptions. Every resource also has the column `Age`, and all but SpeakerStatus
the columns `Valid` and `Reason` of their [condition](#conditions).";
/// Columns of `kubectl get` that the introduction of the page describes, by their fields.
const COMMON_COLUMNS: [&str; 3] = [
    r#".status.conditions[?(@.type=="Valid")].status"#,
    r#".status.conditions[?(@.type=="Valid")].reason"#,
    ".metadata.creationTimestamp",
];
/// Fields of each `status` that the section on conditions describes.
const COMMON_STATUS: [&str; 2] = ["status.conditions", "status.observedGeneration"];
const SELECTORS: &str = "
## Label selectors

A label selector selects objects by their labels. All of its labels and expressions must match. An
empty label selector selects everything.
";
const CONDITIONS: &str = "
## Conditions

The status of each resource but SpeakerStatus has `status.conditions`, and in
`status.observedGeneration` the `metadata.generation` to which it applies. The condition `Valid`
states whether the object is in use as written, and why not.

A condition has the fields of every Kubernetes condition: `type`, `status` (`True`, `False` or
`Unknown`), `reason`, `message`, `lastTransitionTime` and `observedGeneration`.
[Conditions](conditions.md) lists the types and the reasons.
";

/// Returns the string at a JSON pointer.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the name of a custom resource: its kind.
fn kind(crd: &Value) -> &str {
    text(crd, "/spec/names/kind")
}

/// Returns the first table of the page: all custom resources.
fn overview(crds: &[Value]) -> String {
    let row = |crd: &Value| {
        let kind = kind(crd);
        vec![
            format!("[{kind}](#{})", kind.to_lowercase()),
            code(text(crd, "/spec/names/shortNames/0")),
            code(text(crd, "/spec/versions/0/name")),
        ]
    };
    let rows: Vec<_> = crds.iter().map(row).collect();
    table(&["Kind", "Short name", "Version"], &rows)
}

/// Returns a heading and a table, or nothing if the table has no rows.
fn section(heading: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{heading}\n{}", table(columns, rows))
}

/// Returns the rows of the columns that `kubectl get` prints, without [`COMMON_COLUMNS`].
fn columns(crd: &Value) -> Vec<Vec<String>> {
    let columns = crd.pointer("/spec/versions/0/additionalPrinterColumns");
    let columns = columns.and_then(Value::as_array).into_iter().flatten();
    let row = |column: &Value| {
        let is_wide = column["priority"].as_i64().is_some_and(|priority| priority > 0);
        let name = text(column, "/name");
        let name = if is_wide { format!("{name} (`-o wide`)") } else { name.to_owned() };
        vec![name, code(text(column, "/jsonPath"))]
    };
    let is_common = |column: &&Value| COMMON_COLUMNS.contains(&text(column, "/jsonPath"));
    columns.filter(|column| !is_common(column)).map(row).collect()
}

/// Returns the rows of fields, without [`COMMON_STATUS`]. A user does not write a status, so only
/// required fields of a `spec` are marked.
fn field_rows(fields: &Fields) -> Vec<Vec<String>> {
    let rows = fields.fields.iter().filter(|field| !COMMON_STATUS.contains(&&*field.path));
    let row = |field: &Field| {
        let is_marked = field.is_required && !field.path.starts_with("status.");
        let mark = if is_marked { "; required" } else { "" };
        vec![code(&field.path), format!("{}{mark}", field.kind), field.description.clone()]
    };
    rows.map(row).collect()
}

fn message_rows(fields: &Fields) -> Vec<Vec<String>> {
    fields.messages.iter().map(|(path, message)| vec![code(path), message.clone()]).collect()
}

/// Returns the section of one custom resource, and its fields.
fn resource(crd: &Value) -> (String, [Fields; 2]) {
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let part = |name: &str| Fields::of(name, &schema["properties"][name]);
    let (spec, status) = (part("spec"), part("status"));
    let (kind, short) = (kind(crd), text(crd, "/spec/names/shortNames/0"));
    let page = [
        format!("\n## {kind}\n{}", paragraph(text(schema, "/description"))),
        section(
            &format!("### Fields of {kind}"),
            &["Field", "Type", "Description"],
            &field_rows(&spec),
        ),
        section(
            &format!("### Validation messages of {kind}"),
            &["Field", "Message"],
            &message_rows(&spec),
        ),
        section(
            &format!("### Status of {kind}"),
            &["Field", "Type", "Description"],
            &field_rows(&status),
        ),
        section(
            &format!("### Columns of `kubectl get {short}`"),
            &["Column", "Field"],
            &columns(crd),
        ),
    ];
    (page.concat(), [spec, status])
}

/// Returns the one schema of a type that many fields share. `schemas` are its occurrences, which
/// must be equal apart from their own descriptions.
fn shared<'a>(schemas: impl IntoIterator<Item = &'a Value>) -> &'a Value {
    let mut schemas = schemas.into_iter();
    let first = schemas.next().expect("no field has a shared type");
    assert!(
        schemas.all(|schema| schema["properties"] == first["properties"]),
        "the fields of a shared type differ, so the page must list each of them"
    );
    first
}

/// Returns the section of label selectors.
fn selectors_section(schema: &Value) -> String {
    let fields = Fields::of("", schema);
    let fields_table = table(&["Field", "Type", "Description"], &field_rows(&fields));
    let messages = table(&["Field", "Message"], &message_rows(&fields));
    // The path of a field begins with a period, because the path of the shared type is empty.
    [SELECTORS, &fields_table, &messages].concat().replace("`.", "`")
}

/// Returns the page.
fn generate() -> String {
    let crds: Vec<_> = api::crds()
        .iter()
        .map(|crd| serde_json::to_value(crd).expect("a CRD cannot be written as JSON"))
        .collect();
    let mut page = head("API reference", "proto/src/api", COMMAND, INTRODUCTION);
    page.push_str(&overview(&crds));
    let mut all = Vec::new();
    for crd in &crds {
        let (section, fields) = resource(crd);
        page.push_str(&section);
        all.extend(fields);
    }
    let selector = shared(all.iter().flat_map(|fields| &fields.selectors));
    page.push_str(&selectors_section(selector));
    let condition = shared(all.iter().flat_map(|fields| &fields.conditions));
    for name in condition["properties"].as_object().expect("a condition has no fields").keys() {
        assert!(CONDITIONS.contains(&code(name)), "CONDITIONS does not name {name}");
    }
    page.push_str(CONDITIONS);
    page
}

#[test]
fn the_api_page_is_current() {
    generated::check(&root(), FILE, &generate(), COMMAND);
}

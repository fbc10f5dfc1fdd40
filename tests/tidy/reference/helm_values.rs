//! `docs/reference/helm-values.md`, and the README.md of the chart, which registries show: the
//! values of the chart, with the comments of `values.yaml`.

use std::fs;

use serde_json::Value;

use crate::generated::{self, code, head, one_line, paragraph, table};
use crate::tree::root;

const FILE: &str = "docs/reference/helm-values.md";
const SOURCE: &str = "deploy/helm/ferrolb/values.yaml";
const COMMAND: &str = "-p ferrolb-tidy reference";
const INTRODUCTION: &str = "\
This page lists every value of FerroLB's Helm chart, with its default. [Helm](../install/helm.md) \
describes the installation. Helm rejects a value that is not on this page.";
const README: &str = "deploy/helm/ferrolb/README.md";
/// Parts of the chart's page before the values. Its links are complete, because the page has
/// another address in each registry.
const README_INTRODUCTION: &str = "\
FerroLB assigns addresses of your network to Services of type LoadBalancer, and announces them by \
ARP, NDP or BGP. Read the \
[requirements](https://github.com/ferrolb/ferrolb/blob/main/docs/getting-started.md#requirements) \
first. This command [installs](https://github.com/ferrolb/ferrolb/blob/main/docs/install/helm.md) \
the chart with a first pool of your own range:";
const README_COMMAND: &str = "
```sh
helm install ferrolb oci://registry.example.com/ferrolb/charts/ferrolb \\
  --namespace ferrolb-system --create-namespace --wait \\
  --set-json 'pools=[{\"name\":\"first\",\"addresses\":[\"192.168.1.240-192.168.1.250\"]}]'
```
";
const README_NOTES: &str = "\
Helm neither changes nor deletes CustomResourceDefinitions, so an \
[upgrade](https://github.com/ferrolb/ferrolb/blob/main/docs/install/upgrade.md#upgrade-with-helm) \
has a step for them. Helm rejects a value that is not on this page.";

/// A key of `values.yaml`.
#[derive(Debug, Default)]
struct Entry {
    /// Names of the key and of the keys around it, from the outside.
    path: Vec<String>,
    /// YAML of the default. Empty: the key contains other keys.
    default: String,
    /// Sentences of the comment above the key.
    comment: String,
    /// YAML of the comment's example.
    example: String,
}

/// Returns the keys of a values file, in order.
fn entries(source: &str) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let mut comment = Entry::default();
    let mut path: Vec<String> = Vec::new();
    for line in source.lines() {
        let indent = line.len() - line.trim_start().len();
        let content = line.trim();
        if content.is_empty() {
            comment = Entry::default();
        } else if let Some(text) = content.strip_prefix('#') {
            match text.strip_prefix("   ") {
                Some(example) => comment.example.push_str(&format!("{example}\n")),
                None => comment.comment.push_str(text),
            }
        } else if content.starts_with("- ") {
            if let Some(entry) = found.last_mut() {
                entry.default = format!("[{}]", content.trim_start_matches("- "));
            }
        } else if let Some((name, value)) = content.split_once(':') {
            path.truncate(indent / 2);
            path.push(name.to_owned());
            let default = value.trim().to_owned();
            found.push(Entry { path: path.clone(), default, ..std::mem::take(&mut comment) });
        }
    }
    found
}

/// Returns the description of a key: its comment, the comment of the group around it, or the
/// comment of the same key of an earlier component.
fn description(entries: &[Entry], index: usize) -> &str {
    let entry = &entries[index];
    let is_same = |other: &&Entry| {
        other.path.len() > 1
            && other.path.get(1..) == entry.path.get(1..)
            && !other.comment.is_empty()
    };
    let around = entry.path.split_last().map(|(_, around)| around).unwrap_or_default();
    let group = || entries.iter().find(|other| other.path == around);
    let candidates = [Some(entry), group(), entries[..index].iter().find(is_same)];
    let comments = candidates.into_iter().flatten().map(|entry| entry.comment.as_str());
    comments.into_iter().find(|comment| !comment.is_empty()).unwrap_or_default()
}

/// Returns the rows of the keys whose paths begin with `group`, or of the outermost keys.
fn rows(entries: &[Entry], group: Option<&str>) -> Vec<Vec<String>> {
    let is_in_group = |entry: &Entry| match group {
        Some(group) => entry.path.len() > 1 && entry.path[0] == group,
        None => entry.path.len() == 1,
    };
    let row = |(index, entry): (usize, &Entry)| {
        let path = entry.path.join(".");
        let description = description(entries, index).trim();
        assert!(description.ends_with(['.', ':']), "{SOURCE}: write a comment above {path}");
        let description = one_line(description.trim_end_matches("Example:"));
        vec![code(&path), code(&entry.default), description]
    };
    let shown = |(_, entry): &(usize, &Entry)| is_in_group(entry) && !entry.default.is_empty();
    entries.iter().enumerate().filter(shown).map(row).collect()
}

/// Returns the page of the documentation.
fn page(source: &str) -> String {
    head("Helm values", SOURCE, COMMAND, INTRODUCTION) + &values(source)
}

/// Returns the page of the chart.
fn readme(source: &str) -> String {
    let head = head("FerroLB", SOURCE, COMMAND, README_INTRODUCTION);
    format!("{head}{README_COMMAND}{}{}", paragraph(README_NOTES), values(source))
}

/// Returns a section for each group of values.
fn values(source: &str) -> String {
    let columns = ["Value", "Default", "Description"];
    let entries = entries(source);
    let mut text = "\n## General values\n".to_owned();
    text.push_str(&table(&columns, &rows(&entries, None)));
    for entry in entries.iter().filter(|entry| !entry.example.is_empty()) {
        let introduction = format!("An example of `{}`:", entry.path.join("."));
        text.push_str(&paragraph(&introduction));
        text.push_str(&format!("\n<!-- helm values -->\n```yaml\n{}```\n", entry.example));
    }
    let groups = entries.iter().filter(|entry| entry.path.len() == 1 && entry.default.is_empty());
    for entry in groups {
        let name = &entry.path[0];
        text.push_str(&format!("\n## Values of `{name}`\n"));
        text.push_str(&table(&columns, &rows(&entries, Some(name))));
    }
    text
}

#[test]
fn the_pages_of_the_helm_values_are_current() {
    let source = fs::read_to_string(root().join(SOURCE)).expect("cannot read values.yaml");
    generated::check(&root(), FILE, &page(&source), COMMAND);
    generated::check(&root(), README, &readme(&source), COMMAND);
}

#[test]
fn every_default_is_read_as_yaml_reads_it() {
    let source = fs::read_to_string(root().join(SOURCE)).expect("cannot read values.yaml");
    let values: Value = serde_saphyr::from_str(&source).expect("values.yaml is not YAML");
    let entries = entries(&source);
    let mut rebuilt = Value::Null;
    for entry in &entries {
        let place = entry.path.iter().fold(&mut rebuilt, |place, name| &mut place[name]);
        *place = serde_saphyr::from_str(&entry.default).unwrap_or(Value::Null);
    }
    assert_eq!(rebuilt, values);
}

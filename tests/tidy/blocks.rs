//! Checks of the code blocks of all pages: the language, and the markers that state how a test runs
//! or applies a block. A marker is an HTML comment on the line before the fence.

use serde_json::Value;

use crate::manifests::problem;
use crate::markdown::{CodeBlock, pages};
use crate::tree::assert_none;

/// Places where a test runs a shell block: a lab with layer 2, a lab with BGP, a cluster with pods,
/// and a machine with Helm and kustomize.
const RUNS: [&str; 4] = ["lab", "bgp", "kubeadm", "install"];

/// Names of languages with a better name, which the checks of this file would not find.
const ALIASES: [(&str, &str); 6] = [
    ("bash", "sh"),
    ("console", "sh"),
    ("shell", "sh"),
    ("zsh", "sh"),
    ("yml", "yaml"),
    ("txt", "text"),
];

/// Returns whether the blocks of a page need markers: users follow it.
fn has_markers(path: &str) -> bool {
    path == "README.md" || path.starts_with("docs/")
}

/// Returns whether the blocks of a page need a language. The notes beside tests and examples show
/// topologies only.
fn has_languages(path: &str) -> bool {
    has_markers(path) || !path.contains('/')
}

/// Returns whether a marker is `<!-- NAME: REASON -->` with a reason.
fn has_reason(marker: &str, name: &str) -> bool {
    marker.strip_prefix(name).is_some_and(|reason| !reason.trim().is_empty())
}

/// Returns whether a marker is `<!-- run: PLACE -->` with a known place.
fn is_run(marker: &str) -> bool {
    marker.strip_prefix("run: ").is_some_and(|place| RUNS.contains(&place))
}

/// Returns the problem of a block's marker.
fn marker_problem(block: &CodeBlock) -> Option<&'static str> {
    let marker = block.marker.as_deref().unwrap_or_default();
    let is_object = block.text.lines().any(|line| line.starts_with("kind:"));
    match block.language.as_str() {
        "sh" if !is_run(marker) && !has_reason(marker, "not run:") => Some(
            "begin with <!-- run: lab|bgp|kubeadm|install --> or <!-- not run: REASON --> \
             on the line before the fence",
        ),
        "sh" if block.text.lines().any(|line| line.starts_with("$ ")) => {
            Some("a command has no prompt")
        }
        "yaml" if has_reason(marker, "not applied:") || marker == "helm values" => None,
        "yaml" if !is_object => Some(
            "an object has a line kind: ..., other YAML begins with <!-- not applied: REASON --> \
             or <!-- helm values -->",
        ),
        "yaml" if !marker.is_empty() && !is_run(marker) => Some(
            "the marker is none of <!-- run: lab|bgp|kubeadm|install -->, \
             <!-- not applied: REASON -->, <!-- helm values -->",
        ),
        _ => None,
    }
}

/// Returns the problems of the FerroLB objects in a block of YAML.
fn object_problems(block: &CodeBlock) -> Vec<String> {
    match serde_saphyr::from_multiple::<Value>(&block.text) {
        Err(error) => vec![error.to_string()],
        Ok(objects) => {
            let group = format!("{}/", ferrolb_proto::api::GROUP);
            let version = |object: &Value| object["apiVersion"].as_str().map(str::to_owned);
            let ours = objects
                .iter()
                .filter(|object| version(object).is_some_and(|it| it.starts_with(&group)));
            ours.filter_map(problem).collect()
        }
    }
}

#[test]
fn every_block_has_a_language() {
    let mut problems = Vec::new();
    for page in pages().into_iter().filter(|page| has_languages(&page.path)) {
        for block in &page.blocks {
            let alias = ALIASES.iter().find(|(alias, _)| *alias == block.language);
            let problem = match alias {
                Some((alias, name)) => format!("\"{alias}\" -> \"{name}\""),
                None if block.language.is_empty() => "no language".to_owned(),
                None => continue,
            };
            problems.push(format!("{}:{}: {problem}", page.path, block.line));
        }
    }
    assert_none(&problems, "write sh, yaml, text or another language after these fences:");
}

#[test]
fn every_shell_and_yaml_block_states_how_it_is_tested() {
    let mut problems = Vec::new();
    for page in pages().into_iter().filter(|page| has_markers(&page.path)) {
        for block in &page.blocks {
            let found = marker_problem(block);
            problems
                .extend(found.map(|problem| format!("{}:{}: {problem}", page.path, block.line)));
        }
    }
    assert_none(&problems, "a test runs shell blocks and applies YAML blocks:");
}

#[test]
fn the_objects_on_pages_are_valid_and_have_no_unknown_fields() {
    let mut problems = Vec::new();
    for page in pages().into_iter().filter(|page| has_markers(&page.path)) {
        let is_applied = |block: &&CodeBlock| {
            let marker = block.marker.as_deref().unwrap_or_default();
            block.language == "yaml"
                && !has_reason(marker, "not applied:")
                && marker != "helm values"
        };
        for block in page.blocks.iter().filter(is_applied) {
            let found = object_problems(block).into_iter();
            problems
                .extend(found.map(|problem| format!("{}:{}: {problem}", page.path, block.line)));
        }
    }
    assert_none(&problems, "these objects are not valid:");
}

#[test]
fn a_missing_or_wrong_marker_is_a_problem() {
    let is_wrong = |language: &str, marker: Option<&str>, text: &str| {
        let (language, marker) = (language.to_owned(), marker.map(str::to_owned));
        marker_problem(&CodeBlock { line: 1, language, marker, text: text.to_owned() }).is_some()
    };
    let cases = [
        ("sh", None, "ls", true),
        ("sh", Some("run: lab"), "ls", false),
        ("sh", Some("run: lab"), "$ ls", true),
        ("sh", Some("run: moon"), "ls", true),
        ("sh", Some("not run: opens a browser"), "ls", false),
        ("sh", Some("not run:"), "ls", true),
        ("yaml", None, "kind: Service\n", false),
        ("yaml", None, "a: b\n", true),
        ("yaml", Some("not applied: config file of k3s"), "a: b\n", false),
        ("yaml", Some("helm values"), "a: b\n", false),
        ("yaml", Some("run: lab"), "kind: Service\n", false),
        ("text", None, "ls", false),
    ];
    for (language, marker, text, expect) in cases {
        assert_eq!(is_wrong(language, marker, text), expect, "{language} {marker:?} {text}");
    }
}

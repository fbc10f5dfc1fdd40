//! Checks of the code blocks of all pages: the language, and the markers that state how a test runs
//! or applies a block. A marker is an HTML comment on the line before the fence.

use ferrolb_markdown::{Block, Marker, Page, SHELL, YAML};
use serde_json::Value;

use crate::manifests::problem;
use crate::tree::{assert_none, pages};

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

/// Returns the problem of a block, or of its marker.
fn block_problem(block: &Block) -> Option<String> {
    if let Some(error) = &block.error {
        return Some(error.to_string());
    }
    let problem = match (block.language.as_str(), &block.marker) {
        (SHELL, None | Some(Marker::NotApplied(_) | Marker::HelmValues)) => {
            "begin with <!-- run: PLACE --> or <!-- not run: REASON --> on the line before the \
             fence"
        }
        (SHELL, _) if block.text.lines().any(|line| line.starts_with("$ ")) => {
            "a command has no prompt"
        }
        (YAML, Some(Marker::NotApplied(_) | Marker::HelmValues)) => return None,
        (YAML, _) if !block.has_kind() => {
            "an object has a line kind: ..., other YAML begins with <!-- not applied: REASON --> \
             or <!-- helm values -->"
        }
        (YAML, Some(Marker::NotRun(_))) => {
            "the marker of an object is <!-- not applied: REASON -->"
        }
        _ => return None,
    };
    Some(problem.to_owned())
}

/// Returns the problems of the FerroLB objects in a block of YAML.
fn object_problems(block: &Block) -> Vec<String> {
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
            let found = block_problem(block);
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
        for block in page.blocks.iter().filter(|block| block.is_applied()) {
            let found = object_problems(block).into_iter();
            problems
                .extend(found.map(|problem| format!("{}:{}: {problem}", page.path, block.line)));
        }
    }
    assert_none(&problems, "these objects are not valid:");
}

#[test]
fn a_missing_or_wrong_marker_is_a_problem() {
    let cases = [
        ("sh", "", "ls", true),
        ("sh", "<!-- run: lab -->", "ls", false),
        ("sh", "<!-- run: lab -->", "$ ls", true),
        ("sh", "<!-- run: moon -->", "ls", true),
        ("sh", "<!-- not run: opens a browser -->", "ls", false),
        ("sh", "<!-- not run: -->", "ls", true),
        ("sh", "<!-- not applied: config file of k3s -->", "ls", true),
        ("sh", "<!-- helm values -->", "ls", true),
        ("yaml", "", "kind: Service", false),
        ("yaml", "", "a: b", true),
        ("yaml", "<!-- not applied: config file of k3s -->", "a: b", false),
        ("yaml", "<!-- not applied: -->", "a: b", true),
        ("yaml", "<!-- helm values -->", "a: b", false),
        ("yaml", "<!-- run: lab -->", "kind: Service", false),
        ("yaml", "<!-- run: lab -->", "a: b", true),
        ("yaml", "<!-- not run: opens a browser -->", "kind: Service", true),
        ("yaml", "<!-- any comment -->", "kind: Service", true),
        ("text", "", "ls", false),
    ];
    for (language, marker, text, expect) in cases {
        let page = Page::parse("p.md", &format!("{marker}\n```{language}\n{text}\n```\n"));
        let is_wrong = block_problem(&page.blocks[0]).is_some();
        assert_eq!(is_wrong, expect, "{language} {marker} {text}");
    }
}

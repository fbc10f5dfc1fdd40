//! Checks of .github/workflows: pinned actions, least permissions, and commands that a person can
//! run without GitHub. actionlint checks the syntax in .ci/compute.

use serde_json::Value;

use crate::tree::{TextFile, assert_none, files};

const FOLDER: &str = ".github/workflows/";
/// Commands of the steps. Everything else belongs into .ci or into `cargo lab`.
const COMMANDS: [&str; 4] = [
    ".ci/run",
    r#"cargo lab dist --registry "$REGISTRY""#,
    r#"gh run download "$GITHUB_RUN_ID" --name dist --dir target/dist"#,
    ".ci/publish",
];
/// Hexadecimal digits of a commit.
const COMMIT_DIGITS: usize = 40;

fn workflows() -> Vec<TextFile> {
    let all: Vec<_> = files(&[".yml", ".yaml"])
        .into_iter()
        .filter(|file| file.path.starts_with(FOLDER))
        .collect();
    assert!(!all.is_empty(), "there is no workflow in {FOLDER}");
    all
}

/// Returns whether an action has a commit and its version, such as `a/b@<40 digits> # v1.2.3`.
fn is_pinned(action: &str) -> bool {
    let Some((_, pin)) = action.split_once('@') else { return false };
    let Some((commit, version)) = pin.split_once(" # v") else { return false };
    let is_number = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    commit.len() == COMMIT_DIGITS
        && commit.bytes().all(|byte| byte.is_ascii_hexdigit())
        && version.split('.').count() == 3
        && version.split('.').all(is_number)
}

/// Returns the problems of a workflow.
fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().map(|line| line.trim_start_matches([' ', '-']));
    let actions = lines.filter_map(|line| line.strip_prefix("uses: "));
    problems.extend(
        actions
            .filter(|it| !is_pinned(it))
            .map(|it| format!("{it}: not OWNER/NAME@COMMIT # vX.Y.Z")),
    );
    let workflow: Value = match serde_saphyr::from_str(text) {
        Ok(workflow) => workflow,
        Err(error) => return vec![error.to_string()],
    };
    if workflow["permissions"] != serde_json::json!({}) {
        problems.push("no line `permissions: {}`: each job has its own".to_owned());
    }
    for (name, job) in workflow["jobs"].as_object().into_iter().flatten() {
        for field in ["permissions", "timeout-minutes"] {
            if job[field].is_null() {
                problems.push(format!("job {name} has no {field}"));
            }
        }
        let steps = job["steps"].as_array().into_iter().flatten();
        let commands = steps.filter_map(|step| step["run"].as_str());
        let others = commands.filter(|command| !COMMANDS.contains(command));
        problems.extend(others.map(|it| format!("job {name} runs {it:?}, not one of COMMANDS")));
    }
    problems
}

#[test]
fn workflows_pin_actions_limit_permissions_and_run_commands_of_the_repository() {
    let of = |file: TextFile| {
        problems(&file.text).into_iter().map(move |it| format!("{}: {it}", file.path))
    };
    let problems: Vec<_> = workflows().into_iter().flat_map(of).collect();
    assert_none(&problems, "correct these workflows:");
}

#[test]
fn each_rule_for_workflows_finds_its_problem() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let workflow = |top: &str, job: &str, uses: &str, run: &str| {
        format!(
            "{top}\njobs:\n  a:\n    {job}\n    steps:\n      - uses: {uses}\n      - run: {run}\n"
        )
    };
    let (top, job) = ("permissions: {}", "timeout-minutes: 1\n    permissions: {}");
    let (uses, run) = (format!("a/b@{commit} # v1.2.3"), ".ci/publish");
    let cases = [
        (workflow(top, job, &uses, run), 0),
        (workflow("name: a", job, &uses, run), 1),
        (workflow("permissions: write-all", job, &uses, run), 1),
        (workflow(top, "timeout-minutes: 1", &uses, run), 1),
        (workflow(top, "permissions: {}", &uses, run), 1),
        (workflow(top, job, "a/b@v1", run), 1),
        (workflow(top, job, &format!("a/b@{commit}"), run), 1),
        (workflow(top, job, &format!("a/b@{commit} # v1"), run), 1),
        (workflow(top, job, &format!("a/b@{} # v1.2.3", &commit[1..]), run), 1),
        (workflow(top, job, &uses, "curl example.com"), 1),
    ];
    for (text, expect) in cases {
        assert_eq!(problems(&text).len(), expect, "{text}");
    }
}

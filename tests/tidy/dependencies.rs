//! Checks that dependencies between crates have one direction, and that the pure crates, which make
//! all decisions, do no I/O. docs/internals/architecture.md gives the reasons.

use std::collections::BTreeSet;
use std::process::Command;

use crate::tree::{assert_none, files, root};

/// The pure crates, and their folders.
const PURE: [(&str, &str); 4] = [
    ("ferrolb-proto", "proto"),
    ("ferrolb-core", "core"),
    ("ferrolb-controller-core", "controller/core"),
    ("ferrolb-speaker-core", "speaker/core"),
];
/// Crates on which no pure crate may depend: event loops, sockets, sources of randomness.
const IO_CRATES: [&str; 9] =
    ["getrandom", "hyper", "mio", "rand", "reqwest", "ring", "rtnetlink", "socket2", "tokio"];

/// Returns the names of `package` and all its dependencies on this platform.
fn packages_of(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            package,
        ])
        .current_dir(root())
        .output()
        .expect("cannot run cargo");
    assert!(
        output.status.success(),
        "cargo tree failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("a package name is not UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn pure_crates_depend_on_no_io() {
    let mut problems = Vec::new();
    for (package, _) in PURE {
        let tree = packages_of(package);
        assert!(tree.contains("serde"), "cargo tree lists no dependency serde: {tree:?}");
        let found = IO_CRATES.iter().filter(|name| tree.contains(**name));
        problems.extend(found.map(|name| format!("{package} -> {name}")));
    }
    assert_none(
        &problems,
        "a pure crate does no I/O and must not depend on these crates (`cargo tree -p PACKAGE -e normal -i NAME` shows the cause):",
    );
}

/// The crates, each with the others on which it may depend.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ferrolb-proto", &[]),
    ("gobgp-proto", &[]),
    ("ferrolb-core", &["ferrolb-proto"]),
    ("ferrolb-controller-core", &["ferrolb-core", "ferrolb-proto"]),
    ("ferrolb-speaker-core", &["ferrolb-core", "ferrolb-proto", "gobgp-proto"]),
    ("ferrolb-runtime", &["ferrolb-core", "ferrolb-proto"]),
    (
        "ferrolb-controller",
        &["ferrolb-controller-core", "ferrolb-core", "ferrolb-proto", "ferrolb-runtime"],
    ),
    (
        "ferrolb-speaker",
        &[
            "ferrolb-core",
            "ferrolb-proto",
            "ferrolb-runtime",
            "ferrolb-speaker-core",
            "gobgp-proto",
        ],
    ),
    ("ferrolb-cli", &["ferrolb-controller-core", "ferrolb-core", "ferrolb-proto"]),
    (
        "ferrolb-sim",
        &[
            "ferrolb-controller-core",
            "ferrolb-core",
            "ferrolb-proto",
            "ferrolb-speaker-core",
            "gobgp-proto",
        ],
    ),
    (
        "ferrolb-lab",
        &["ferrolb-controller-core", "ferrolb-core", "ferrolb-lab-launcher", "ferrolb-proto"],
    ),
    ("ferrolb-lab-launcher", &[]),
    ("ferrolb-markdown", &[]),
    (
        "ferrolb-tests",
        &[
            "ferrolb-controller-core",
            "ferrolb-core",
            "ferrolb-lab",
            "ferrolb-lab-launcher",
            "ferrolb-markdown",
            "ferrolb-proto",
        ],
    ),
];

#[test]
fn crates_have_only_allowed_dependencies() {
    let mut problems = Vec::new();
    for (crate_name, allowed) in ALLOWED {
        let tree = packages_of(crate_name);
        let others = ALLOWED
            .iter()
            .map(|(name, _)| name)
            .filter(|name| *name != crate_name && tree.contains(**name));
        problems.extend(
            others
                .filter(|name| !allowed.contains(name))
                .map(|name| format!("{crate_name} -> {name}")),
        );
    }
    assert_none(
        &problems,
        "components share only the API server and protocols; these dependencies are not allowed:",
    );
}

/// Parts of lines of code that indicate I/O: waiting, locking, threads and system calls.
const IO_SIGNS: [&str; 8] =
    ["async ", "Mutex", "RwLock", "mpsc", "std::thread", "std::fs", "std::process", "std::env"];

/// Returns the lines of code that contain one of `words`.
fn lines_with_any(text: &str, words: &[&str]) -> Vec<String> {
    let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    code.filter(|line| words.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

#[test]
fn pure_crates_do_no_io() {
    let mut problems = Vec::new();
    for (package, folder) in PURE {
        let folder = format!("{folder}/src/");
        let files: Vec<_> =
            files(&[".rs"]).into_iter().filter(|it| it.path.starts_with(&folder)).collect();
        assert!(!files.is_empty(), "{package} has no files in {folder}");
        for file in files {
            let lines = lines_with_any(&file.text, &IO_SIGNS);
            problems.extend(lines.iter().map(|line| format!("{}: {line}", file.path)));
        }
    }
    assert_none(&problems, "a pure crate does no I/O; move these lines to a driver:");
}

/// Modules that connect the core and the drivers of a component.
const CONNECTING_MODULES: [&str; 3] = ["lib", "main", "run"];

#[test]
fn drivers_know_only_desired_and_events() {
    let mut problems = Vec::new();
    for file in files(&[".rs"]) {
        let rest = ["controller/src/", "speaker/src/"]
            .iter()
            .find_map(|folder| file.path.strip_prefix(folder));
        let Some(rest) = rest else { continue };
        let module = rest.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if !CONNECTING_MODULES.contains(&module) {
            let lines = lines_with_any(&file.text, &["_core::state"]);
            problems.extend(lines.iter().map(|line| format!("{}: {line}", file.path)));
        }
    }
    assert_none(&problems, "drivers import only Desired and events of the core:");
}

//! Checks that dependencies between crates have one direction, and that the core of each component
//! (its modules `event`, `state`, `plan` and `desired`) does no I/O. docs/internals/architecture.md
//! gives the reasons.

use std::collections::BTreeSet;
use std::process::Command;

use crate::tree::{assert_none, files, root};

/// Crates on which `ferrolb-proto` may not depend: event loops, sockets, sources of randomness.
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
fn proto_does_no_io() {
    let tree = packages_of("ferrolb-proto");
    assert!(tree.contains("serde"), "cargo tree lists no dependency serde: {tree:?}");
    let problems: Vec<_> =
        IO_CRATES.iter().filter(|name| tree.contains(**name)).map(ToString::to_string).collect();
    assert_none(
        &problems,
        "ferrolb-proto does no I/O and must not depend on these crates (`cargo tree -p ferrolb-proto -e normal -i NAME` shows the cause):",
    );
}

#[test]
fn crates_have_only_allowed_dependencies() {
    let crates = [
        ("ferrolb-proto", vec![]),
        ("gobgp-proto", vec![]),
        ("ferrolb-runtime", vec!["ferrolb-proto"]),
        ("ferrolb-controller", vec!["ferrolb-proto", "ferrolb-runtime"]),
        ("ferrolb-speaker", vec!["ferrolb-proto", "ferrolb-runtime", "gobgp-proto"]),
        ("ferrolb-cli", vec!["ferrolb-proto"]),
        ("ferrolb-sim", vec!["ferrolb-proto"]),
        ("ferrolb-lab", vec!["ferrolb-lab-launcher", "ferrolb-proto"]),
        ("ferrolb-lab-launcher", vec![]),
        ("ferrolb-markdown", vec![]),
        (
            "ferrolb-tests",
            vec!["ferrolb-lab", "ferrolb-lab-launcher", "ferrolb-markdown", "ferrolb-proto"],
        ),
    ];
    let mut problems = Vec::new();
    for (crate_name, allowed) in &crates {
        let tree = packages_of(crate_name);
        let others = crates
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

/// Modules of a component's core, which makes all decisions and does no I/O.
const CORE: [&str; 4] = ["desired", "event", "plan", "state"];
/// Modules of the core that each component must have. `desired` may be part of `plan` instead.
const REQUIRED_CORE: [&str; 3] = ["event", "plan", "state"];
/// Modules that connect the core and the drivers, and therefore import both.
const CONNECTING_MODULES: [&str; 3] = ["lib", "main", "run"];

/// Parts of lines of code that indicate I/O: waiting, locking, threads, system calls, and the APIs
/// of other programs.
const IO_SIGNS: [&str; 17] = [
    ".await",
    "async ",
    "tokio::",
    "futures::",
    "Mutex",
    "RwLock",
    "mpsc",
    "std::thread",
    "std::fs",
    "std::process",
    "std::env",
    "std::io",
    "kube::",
    "gobgp_proto",
    "rtnetlink",
    "socket2",
    "libc::",
];

/// The core of the controller is a module of `ferrolb-proto`, because `kubectl ferrolb` runs it,
/// too.
const CONTROLLER_CORE: &str = "proto/src/controller/";

/// Returns the component and the top-level module of a file: `speaker/src/plan/units.rs` is
/// `("speaker", "plan")`.
fn module(path: &str) -> Option<(&str, &str)> {
    let (component, rest) = match path.strip_prefix(CONTROLLER_CORE) {
        Some(rest) => ("controller", rest),
        None => path.split_once("/src/")?,
    };
    let first = rest.split('/').next()?;
    matches!(component, "controller" | "speaker")
        .then(|| (component, first.trim_end_matches(".rs")))
}

/// Returns the lines of code that contain one of `words`.
fn lines_with_any(text: &str, words: &[&str]) -> Vec<String> {
    let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    code.filter(|line| words.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

#[test]
fn the_core_of_each_component_does_no_io() {
    let mut problems = Vec::new();
    let mut found = BTreeSet::new();
    for file in files(&[".rs"]) {
        let Some((component, name)) = module(&file.path).filter(|(_, name)| CORE.contains(name))
        else {
            continue;
        };
        found.insert((component.to_owned(), name.to_owned()));
        problems.extend(
            lines_with_any(&file.text, &IO_SIGNS)
                .iter()
                .map(|line| format!("{}: {line}", file.path)),
        );
    }
    for component in ["controller", "speaker"] {
        let missing = REQUIRED_CORE
            .iter()
            .filter(|name| !found.contains(&(component.to_owned(), (*name).to_string())));
        problems.extend(missing.map(|name| format!("{component}/src has no module {name}")));
    }
    assert_none(
        &problems,
        "events -> state -> plan -> Desired does no I/O; move these lines to a driver:",
    );
}

#[test]
fn drivers_and_the_core_import_only_what_they_may() {
    let mut problems = Vec::new();
    for file in files(&[".rs"]) {
        let Some((_, name)) = module(&file.path) else { continue };
        let is_core_of_controller = file.path.starts_with(CONTROLLER_CORE);
        let wrong = if CORE.contains(&name) {
            let runtime_imports = lines_with_any(&file.text, &["ferrolb_runtime"]);
            let imports = lines_with_any(&file.text, &["crate::"]);
            let is_driver = |line: &String| {
                let imported = line.split("crate::").nth(1).unwrap_or_default();
                !is_core_of_controller && !CORE.iter().any(|core| imported.starts_with(core))
            };
            imports.into_iter().filter(is_driver).chain(runtime_imports).collect()
        } else if CONNECTING_MODULES.contains(&name) {
            Vec::new()
        } else {
            lines_with_any(&file.text, &["crate::state", "controller::state"])
        };
        problems.extend(wrong.into_iter().map(|line| format!("{}: {line}", file.path)));
    }
    assert_none(&problems, "the core imports only itself, and drivers only Desired and Event:");
}

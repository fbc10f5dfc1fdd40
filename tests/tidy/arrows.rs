//! The arrows between rooms run one way, and the core does no IO (docs/architecture.md has the reasons).

use std::collections::BTreeSet;
use std::process::Command;

use crate::tree::{assert_none, files, root};

/// What no pure crate may have in its tree: an event loop, sockets, a source of chance.
const IMPURE: [&str; 9] = ["getrandom", "hyper", "mio", "rand", "reqwest", "ring", "rtnetlink", "socket2", "tokio"];

/// The names of all packages that `package` is built with, itself included, on this platform.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", package])
        .current_dir(root())
        .output()
        .expect("cargo runs the tests, so it is there");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn proto_is_pure() {
    let tree = tree("ferrolb-proto");
    assert!(tree.contains("serde"), "the tree could not be read: {tree:?}");
    let problems: Vec<_> = IMPURE.iter().filter(|name| tree.contains(**name)).map(ToString::to_string).collect();
    assert_none(
        &problems,
        "ferrolb-proto does no IO; `cargo tree -p ferrolb-proto -e normal -i NAME` says who brings:",
    );
}

#[test]
fn rooms_import_only_what_their_arrows_allow() {
    let rooms = [
        ("ferrolb-proto", vec![]),
        ("gobgp-proto", vec![]),
        ("ferrolb-runtime", vec!["ferrolb-proto"]),
        ("ferrolb-controller", vec!["ferrolb-proto", "ferrolb-runtime"]),
        ("ferrolb-speaker", vec!["ferrolb-proto", "ferrolb-runtime", "gobgp-proto"]),
    ];
    let mut problems = Vec::new();
    for (room, allowed) in &rooms {
        let tree = tree(room);
        let others = rooms.iter().map(|(name, _)| name).filter(|name| *name != room && tree.contains(**name));
        problems.extend(others.filter(|name| !allowed.contains(name)).map(|name| format!("{room} -> {name}")));
    }
    assert_none(&problems, "programs meet only in the API server and on the wire; these arrows are not allowed:");
}

/// The modules of a program that decide and do nothing else; `desired` may be part of `plan`.
const CORE: [&str; 4] = ["desired", "event", "plan", "state"];
const CORE_ALWAYS: [&str; 3] = ["event", "plan", "state"];
/// All that the core imports of the shell: a plain enum, what a watch can say of an object.
const CORE_OF_RUNTIME: &str = "use ferrolb_runtime::watch::Change;";

/// What puts the parts of a program together, so that it has to know them all.
const WIRING: [&str; 3] = ["lib", "main", "run"];

/// The signs of a shell: waiting, locking, reading a clock or touching the outside.
const SHELL: [&str; 16] = [
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
    "rtnetlink",
    "socket2",
    "libc::",
];

/// The module of a program that a file belongs to: `speaker/src/plan/unit.rs` is `("speaker", "plan")`.
fn module(path: &str) -> Option<(&str, &str)> {
    let (program, rest) = path.split_once("/src/")?;
    let first = rest.split('/').next()?;
    matches!(program, "controller" | "speaker").then(|| (program, first.trim_end_matches(".rs")))
}

/// The lines of code that hold one of `words`.
fn mentions(text: &str, words: &[&str]) -> Vec<String> {
    let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    code.filter(|line| words.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

#[test]
fn the_core_of_a_program_does_no_io() {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files(&[".rs"]) {
        let Some((program, name)) = module(&file.path).filter(|(_, name)| CORE.contains(name)) else { continue };
        seen.insert((program.to_owned(), name.to_owned()));
        problems.extend(mentions(&file.text, &SHELL).iter().map(|line| format!("{}: {line}", file.path)));
    }
    for program in ["controller", "speaker"] {
        let missing = CORE_ALWAYS.iter().filter(|name| !seen.contains(&(program.to_owned(), (*name).to_string())));
        problems.extend(missing.map(|name| format!("{program}/src has no module {name}")));
    }
    assert_none(&problems, "events -> state -> plan -> Desired is pure; move these to a driver:");
}

#[test]
fn no_driver_imports_the_state_and_the_core_imports_no_driver() {
    let mut problems = Vec::new();
    for file in files(&[".rs"]) {
        let Some((_, name)) = module(&file.path) else { continue };
        let imports = mentions(&file.text, &["crate::"]);
        let of = |line: &String| line.split("crate::").nth(1).unwrap_or_default().to_owned();
        let wrong: Vec<_> = if CORE.contains(&name) {
            let of_runtime =
                mentions(&file.text, &["ferrolb_runtime"]).into_iter().filter(|line| line != CORE_OF_RUNTIME);
            let of_drivers = imports.iter().filter(|line| !CORE.iter().any(|core| of(line).starts_with(core)));
            of_drivers.cloned().chain(of_runtime).collect()
        } else if WIRING.contains(&name) {
            Vec::new()
        } else {
            imports.iter().filter(|line| of(line).starts_with("state")).cloned().collect()
        };
        problems.extend(wrong.into_iter().map(|line| format!("{}: {line}", file.path)));
    }
    assert_none(&problems, "the core imports only itself and the runtime's Change, drivers only Desired and Event:");
}

//! Dependencies between crates have one direction, and the core does no I/O (docs/architecture.md
//! has the reasons).

use std::collections::BTreeSet;
use std::process::Command;

use crate::tree::{assert_none, files, root};

/// Crates that no pure crate may depend on: event loops, sockets, sources of randomness.
const IMPURE: [&str; 9] =
    ["getrandom", "hyper", "mio", "rand", "reqwest", "ring", "rtnetlink", "socket2", "tokio"];

/// Returns the names of all packages that `package` is built with on this platform, itself
/// included.
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
        .expect("cargo runs the tests, so it is there");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn proto_does_no_io() {
    let tree = packages_of("ferrolb-proto");
    assert!(tree.contains("serde"), "the tree could not be read: {tree:?}");
    let problems: Vec<_> =
        IMPURE.iter().filter(|name| tree.contains(**name)).map(ToString::to_string).collect();
    assert_none(
        &problems,
        "ferrolb-proto does no I/O; `cargo tree -p ferrolb-proto -e normal -i NAME` shows the cause of:",
    );
}

#[test]
fn crates_have_only_allowed_dependencies() {
    let rooms = [
        ("ferrolb-proto", vec![]),
        ("gobgp-proto", vec![]),
        ("ferrolb-runtime", vec!["ferrolb-proto"]),
        ("ferrolb-controller", vec!["ferrolb-proto", "ferrolb-runtime"]),
        ("ferrolb-speaker", vec!["ferrolb-proto", "ferrolb-runtime", "gobgp-proto"]),
        ("ferrolb-sim", vec!["ferrolb-proto"]),
        ("ferrolb-lab", vec!["ferrolb-proto"]),
    ];
    let mut problems = Vec::new();
    for (room, allowed) in &rooms {
        let tree = packages_of(room);
        let others = rooms
            .iter()
            .map(|(name, _)| name)
            .filter(|name| *name != room && tree.contains(**name));
        problems.extend(
            others.filter(|name| !allowed.contains(name)).map(|name| format!("{room} -> {name}")),
        );
    }
    assert_none(
        &problems,
        "programs share only the API server and protocols; these dependencies are not allowed:",
    );
}

/// Modules of a program that only decide. `desired` may be part of `plan`.
const CORE: [&str; 4] = ["desired", "event", "plan", "state"];
const CORE_ALWAYS: [&str; 3] = ["event", "plan", "state"];
/// The only import of the core from the I/O layer: a plain enum of the changes that a watch
/// reports.
const CORE_OF_RUNTIME: [&str; 2] =
    ["use ferrolb_runtime::watch::Change;", "use ferrolb_runtime::store::Store;"];

/// Modules that connect the parts of a program, and therefore import all of them.
const WIRING: [&str; 3] = ["lib", "main", "run"];

/// Signs of I/O: waiting, locking, reading a clock, and system calls.
const IO_SIGNS: [&str; 16] = [
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

/// Returns the module of a program that a file belongs to: `speaker/src/plan/units.rs` is
/// `("speaker", "plan")`.
fn module(path: &str) -> Option<(&str, &str)> {
    let (program, rest) = path.split_once("/src/")?;
    let first = rest.split('/').next()?;
    matches!(program, "controller" | "speaker").then(|| (program, first.trim_end_matches(".rs")))
}

/// Returns the lines of code that contain one of `words`.
fn mentions(text: &str, words: &[&str]) -> Vec<String> {
    let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    code.filter(|line| words.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

#[test]
fn the_core_of_a_program_does_no_io() {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files(&[".rs"]) {
        let Some((program, name)) = module(&file.path).filter(|(_, name)| CORE.contains(name))
        else {
            continue;
        };
        seen.insert((program.to_owned(), name.to_owned()));
        problems.extend(
            mentions(&file.text, &IO_SIGNS).iter().map(|line| format!("{}: {line}", file.path)),
        );
    }
    for program in ["controller", "speaker"] {
        let missing = CORE_ALWAYS
            .iter()
            .filter(|name| !seen.contains(&(program.to_owned(), (*name).to_string())));
        problems.extend(missing.map(|name| format!("{program}/src has no module {name}")));
    }
    assert_none(
        &problems,
        "events -> state -> plan -> Desired does no I/O; move these lines to a driver:",
    );
}

#[test]
fn drivers_do_not_import_state_and_the_core_imports_no_driver() {
    let mut problems = Vec::new();
    for file in files(&[".rs"]) {
        let Some((_, name)) = module(&file.path) else { continue };
        let imports = mentions(&file.text, &["crate::"]);
        let of = |line: &String| line.split("crate::").nth(1).unwrap_or_default().to_owned();
        let wrong: Vec<_> = if CORE.contains(&name) {
            let of_runtime = mentions(&file.text, &["ferrolb_runtime"])
                .into_iter()
                .filter(|line| !CORE_OF_RUNTIME.contains(&&**line));
            let of_drivers =
                imports.iter().filter(|line| !CORE.iter().any(|core| of(line).starts_with(core)));
            of_drivers.cloned().chain(of_runtime).collect()
        } else if WIRING.contains(&name) {
            Vec::new()
        } else {
            imports.iter().filter(|line| of(line).starts_with("state")).cloned().collect()
        };
        problems.extend(wrong.into_iter().map(|line| format!("{}: {line}", file.path)));
    }
    assert_none(
        &problems,
        "the core imports only itself and the runtime's Change and Store, drivers only Desired and Event:",
    );
}

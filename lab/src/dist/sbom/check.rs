//! Check of an SBOM: it has each dependency that cargo or Go lists for the program, and only those
//! in the lock file of that language.

use super::{Dependency, GO_LIBRARY, Source};
use crate::dist::crates::Crates;
use crate::run;
use crate::setup::{self, go, gobgp};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Checks the dependencies that the SBOM of a program has.
pub(super) fn check(
    source: Source,
    program: &Path,
    found: &BTreeSet<Dependency>,
    locked: &Crates,
) -> Result<()> {
    match source {
        Source::Package { name, target } => {
            compare(found, &crates_of(name, target)?, |it| locked.contains_key(it))
        }
        Source::GoBgp => {
            let modules = modules_of(program)?;
            let sums = fs::read_to_string(gobgp::source()?.join("go.sum"))?;
            compare(found, &modules, |it| modules.contains(it) && is_in_sums(&sums, it))
        }
    }
}

/// Checks that an SBOM has all `expected` dependencies, and only locked ones.
fn compare(
    found: &BTreeSet<Dependency>,
    expected: &BTreeSet<Dependency>,
    is_locked: impl Fn(&Dependency) -> bool,
) -> Result<()> {
    let missing: Vec<_> = expected.difference(found).collect();
    ensure!(missing.is_empty(), "it lacks {missing:?}");
    let other: Vec<_> = found.iter().filter(|it| !is_locked(it)).collect();
    ensure!(other.is_empty(), "the program or the lock file has no {other:?}");
    Ok(())
}

/// Returns the crates that cargo links into a package for a target.
fn crates_of(package: &str, target: &str) -> Result<BTreeSet<Dependency>> {
    let mut cargo = setup::cargo();
    cargo.args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none"]);
    cargo.args(["--package", package, "--target", target, "--format", "{p}"]);
    Ok(run::run(&mut cargo)?.lines().filter_map(listed_crate).collect())
}

/// Parses a line of `cargo tree`, such as `serde v1.0.0`.
fn listed_crate(line: &str) -> Option<Dependency> {
    let mut words = line.split_whitespace();
    Some(dependency(words.next()?, words.next()?.strip_prefix('v')?))
}

/// Returns the modules that Go linked into a program, and Go's own library.
fn modules_of(program: &Path) -> Result<BTreeSet<Dependency>> {
    let mut go = go::command()?;
    let listed = run::run(go.args(["version", "-m"]).arg(program))?;
    Ok(listed.lines().filter_map(listed_module).collect())
}

/// Parses a line of `go version -m`: the program and the version of Go, or a module.
fn listed_module(line: &str) -> Option<Dependency> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        [program, go] if program.ends_with(':') => Some(dependency(GO_LIBRARY, go)),
        ["mod" | "dep", name, version, ..] => {
            Some(dependency(name, version.trim_start_matches('v')))
        }
        _ => None,
    }
}

fn dependency(name: &str, version: &str) -> Dependency {
    Dependency { name: name.to_owned(), version: version.to_owned() }
}

/// Returns whether a lock file of Go has a module. Go's own library, and the module itself, are in
/// none.
fn is_in_sums(sums: &str, dependency: &Dependency) -> bool {
    let Dependency { name, version } = dependency;
    name == GO_LIBRARY
        || (name == gobgp::MODULE && version == gobgp::VERSION.trim_start_matches('v'))
        || sums.lines().any(|line| line.starts_with(&format!("{name} v{version} h1:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_and_of_go_are_parsed() {
        assert_eq!(listed_crate("serde v1.0.0"), Some(dependency("serde", "1.0.0")));
        let own = listed_crate("ferrolb-core v0.1.0 (/folder/core) (*)");
        assert_eq!(own, Some(dependency("ferrolb-core", "0.1.0")));
        assert_eq!(listed_crate(""), None);
        let sums = "example.com/a v1.0.0 h1:abc=\nexample.com/b v1.0.0/go.mod h1:abc=\n";
        for (name, version, expect) in [
            ("example.com/a", "1.0.0", true),
            ("example.com/a", "1.0.1", false),
            ("example.com/b", "1.0.0", false),
            (GO_LIBRARY, "go1.26.0", true),
            (gobgp::MODULE, gobgp::VERSION.trim_start_matches('v'), true),
        ] {
            assert_eq!(is_in_sums(sums, &dependency(name, version)), expect, "{name} {version}");
        }
        for (line, expect) in [
            ("/folder/gobgpd: go1.26.0", Some((GO_LIBRARY, "go1.26.0"))),
            ("\tpath\texample.com/a/cmd/a", None),
            ("\tmod\texample.com/a\tv1.0.0\th1:abc=", Some(("example.com/a", "1.0.0"))),
            ("\tdep\texample.com/b\tv1.0.1\th1:abc=", Some(("example.com/b", "1.0.1"))),
            ("\tbuild\t-trimpath=true", None),
        ] {
            let expect = expect.map(|(name, version)| dependency(name, version));
            assert_eq!(listed_module(line), expect, "{line}");
        }
    }

    #[test]
    fn an_sbom_with_a_dependency_less_or_more_is_refused() {
        let of = |names: &[&str]| names.iter().map(|name| dependency(name, "1")).collect();
        let program: BTreeSet<_> = of(&["a", "b"]);
        let error = |found: &[&str]| {
            let result = compare(&of(found), &program, |it| program.contains(it));
            result.map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        assert_eq!(error(&["a", "b"]), "");
        assert!(
            error(&["a"]).starts_with("it lacks [Dependency { name: \"b\""),
            "{}",
            error(&["a"])
        );
        assert!(error(&["a", "b", "c"]).contains("has no [Dependency { name: \"c\""));
    }
}

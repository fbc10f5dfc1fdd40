//! A call of cargo from a program that cargo runs, and facts about a first run that the launcher
//! and the lab share. Owns no state.

pub mod first_run;
pub mod requirements;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Beginnings and names of the variables that cargo sets about the package of a running program.
const PREFIXES: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];
const NAMES: [&str; 3] = ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];

/// Returns cargo with the environment of a manual call. Variables that the running cargo set about
/// this package are removed: the build scripts of some crates read them, and cargo would rebuild
/// these crates and all their dependents each time.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_set_by_cargo) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Returns the folder of cargo's build products.
#[must_use]
pub fn target_folder() -> PathBuf {
    let default = || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).to_owned();
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

fn is_set_by_cargo(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_about_the_running_package_are_removed() {
        // cargo sets these variables for this test.
        let removed: Vec<_> = cargo()
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(removed.iter().any(|it| it == name), "{name} is not removed: {removed:?}");
        }
        assert!(!removed.iter().any(|name| name == "PATH"), "PATH is removed");
    }
}

//! Go as the lab calls it: static binaries, the Go that was checked and no other, and caches of our own that can be removed.

use super::{cache, doctor};
use anyhow::{Result, anyhow};
use std::process::Command;

/// Go's settings: a static binary, the Go that was checked and no other, dependencies as locked, caches that can be removed.
pub(super) const SETTINGS: [(&str, &str); 3] =
    [("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=readonly -modcacherw -trimpath")];

/// Go with these settings, ready for its arguments.
pub(super) fn command() -> Result<Command> {
    let cache = cache::folder()?;
    let mut go = Command::new("go");
    go.envs(SETTINGS).env("GOCACHE", cache.join("go-build")).env("GOMODCACHE", cache.join("go-mod"));
    Ok(go)
}

/// What `go version` says.
pub(super) fn version() -> Result<String> {
    doctor::first_line("go", &["version"]).ok_or_else(|| anyhow!("go is not in PATH"))
}

/// What every build depends on: the compiler and its settings.
pub(super) fn inputs(version: &str) -> Vec<(String, Vec<u8>)> {
    let settings = SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    std::iter::once(("go".to_owned(), version.as_bytes().to_vec())).chain(settings).collect()
}

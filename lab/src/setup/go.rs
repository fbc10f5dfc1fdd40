//! Go with the lab's settings: static binaries, the checked Go version only, and removable caches.

use super::build_cache::Inputs;
use super::images::Arch;
use super::{cache, requirements};
use crate::run;
use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment of Go: a static binary, no other Go version, locked dependencies, and caches that
/// can be removed.
pub(super) const SETTINGS: [(&str, &str); 3] = [
    ("CGO_ENABLED", "0"),
    ("GOTOOLCHAIN", "local"),
    ("GOFLAGS", "-mod=readonly -modcacherw -trimpath"),
];

/// Variable of Go's programs that run for a short time. With Go's default, garbage collection takes
/// a sixth of the API server's processor time at its start, a third of kubectl's, and a twelfth of
/// a build's. A developer's watch may run for hours, so it is not off.
pub(crate) const GARBAGE_COLLECTION: (&str, &str) = ("GOGC", "400");

/// Omits symbols and debug information, which would double a program's size.
const LINKER_FLAGS: &str = "-s -w";

/// Returns a command that runs Go with [`SETTINGS`] and the lab's caches, without arguments.
pub(crate) fn command() -> Result<Command> {
    let cache = cache::folder()?;
    let mut go = Command::new("go");
    go.envs(SETTINGS)
        .envs([GARBAGE_COLLECTION])
        .env("GOCACHE", cache.join("go-build"))
        .env("GOMODCACHE", module_cache()?);
    Ok(go)
}

/// Returns the folder with the sources of downloaded modules.
pub(crate) fn module_cache() -> Result<PathBuf> {
    Ok(cache::folder()?.join("go-mod"))
}

/// Returns the output of `go version`.
pub(crate) fn version() -> Result<String> {
    requirements::first_line("go", &["version"]).ok_or_else(|| anyhow!("go is not in PATH"))
}

/// Returns the inputs of every build: the compiler and its settings.
pub(super) fn inputs(version: &str) -> Inputs {
    let settings =
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    std::iter::once(("go".to_owned(), version.as_bytes().to_vec())).chain(settings).collect()
}

/// Returns the directory with the sources of a module, and downloads them if they are missing.
pub(crate) fn source(module: &str, version: &str) -> Result<PathBuf> {
    let module = format!("{module}@{version}");
    let output = run::run(command()?.args(["mod", "download", "-json", &module]))?;
    let module: Value = serde_json::from_str(&output)?;
    module["Dir"]
        .as_str()
        .map(PathBuf::from)
        .with_context(|| format!("`go mod download` printed no directory: {module}"))
}

/// Builds programs of one module at a version into a directory.
pub(super) fn install(folder: &Path, packages: &[&str], version: &str) -> Result<()> {
    let mut go = command()?;
    go.env("GOBIN", folder).args(["install", "-ldflags", LINKER_FLAGS]);
    go.args(packages.iter().map(|package| format!("{package}@{version}")));
    run::run(&mut go).map(drop)
}

/// Builds packages of the module in the directory `source`, or of those that it requires, into a
/// directory, with additional flags.
pub(super) fn install_in(
    source: &Path,
    folder: &Path,
    packages: &[&str],
    flags: &[&str],
) -> Result<()> {
    let mut go = command()?;
    go.current_dir(source).env("GOBIN", folder).args(["install", "-ldflags", LINKER_FLAGS]);
    run::run(go.args(flags).args(packages)).map(drop)
}

/// Builds programs like [`install`] for another architecture. Go puts such programs only into a
/// directory of that architecture's name below `GOPATH`.
pub(super) fn install_for(
    arch: Arch,
    folder: &Path,
    packages: &[&str],
    version: &str,
) -> Result<()> {
    let mut go = command()?;
    go.env("GOPATH", folder).env("GOARCH", arch.name()).args(["install", "-ldflags", LINKER_FLAGS]);
    go.args(packages.iter().map(|package| format!("{package}@{version}")));
    run::run(&mut go)?;
    let built = folder.join("bin").join(format!("linux_{}", arch.name()));
    for program in fs::read_dir(&built)? {
        let program = program?;
        fs::rename(program.path(), folder.join(program.file_name()))?;
    }
    Ok(fs::remove_dir_all(folder.join("bin"))?)
}

/// Returns the inputs of [`install`], except the packages.
pub(super) fn install_inputs(version: &str) -> Result<Inputs> {
    let mut inputs = inputs(&self::version()?);
    inputs.extend(
        [("version", version), ("flags", LINKER_FLAGS)]
            .map(|(name, value)| (name.to_owned(), value.into())),
    );
    Ok(inputs)
}

//! zig as the compiler and the linker of programs for other systems. Its package on PyPI has the
//! headers and the libraries of Windows and macOS, except the frameworks of macOS, whose symbols
//! are in `.ci/macos`.

use super::{build_cache, packages, repository};
use crate::run;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Version of zig.
pub const VERSION: &str = "0.17.1";
/// SHA-256 of its packages for Linux on amd64 and arm64.
const HASHES: [&str; 2] = [
    "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54",
    "b7c5f02fccd40f89b999ee16a1f5ddced56e6182370f8affe494bcf8a28cf07e",
];
/// Directory of zig in the cache.
const CACHE_NAME: &str = "zig";

/// Lets a call of cargo compile and link with zig for a target with Windows or macOS. PATH of the
/// call must contain [`install`].
pub(super) fn set_as_compiler(cargo: &mut Command, target: &str) -> Result<()> {
    let (arch, system) = target.split_once('-').context("the target has no system")?;
    let system = if system.contains("windows") { "windows-gnu" } else { "macos" };
    let scripts = repository().canonicalize()?.join(".ci");
    let variable = target.replace('-', "_");
    let (compiler, archiver) = (scripts.join("zig-cc"), scripts.join("zig-ar"));
    cargo
        .env("ZIG_TARGET", format!("{arch}-{system}"))
        // The time in a program for Windows.
        .env("SOURCE_DATE_EPOCH", "0")
        // Rust would search for Apple's tools otherwise.
        .env("SDKROOT", scripts.join("macos"))
        .env(format!("CC_{variable}"), &compiler)
        .env(format!("AR_{variable}"), archiver);
    cargo.arg("--config").arg(format!("target.{target}.linker={compiler:?}"));
    Ok(())
}

/// Returns the directory with the program `zig`, and installs it if it is missing.
///
/// # Errors
/// If there is no Python, or the download fails.
pub fn install() -> Result<PathBuf> {
    let hashes = HASHES.map(|hash| format!(" --hash=sha256:{hash}")).concat();
    let requirement = format!("ziglang=={VERSION}{hashes}\n");
    let inputs = vec![("requirement".to_owned(), requirement.clone().into())];
    let folder = build_cache::build(CACHE_NAME, &inputs, |folder| {
        packages::install(&packages::missing_of(&["python3-venv"])?)?;
        let environment = folder.join("environment");
        run::run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let file = environment.join("requirements.txt");
        fs::write(&file, &requirement)?;
        let mut pip = Command::new(environment.join("bin/pip"));
        pip.args(["install", "--quiet", "--only-binary=:all:", "--require-hashes", "--target"]);
        run::run(pip.arg(folder).arg("--requirement").arg(file))?;
        Ok(fs::remove_dir_all(environment)?)
    })?;
    Ok(folder.join("ziglang"))
}

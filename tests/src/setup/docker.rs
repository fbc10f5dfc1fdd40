//! Whether the routers of the tests are to be containers, and the Docker engine for that.

use anyhow::{Result, bail};
use std::path::Path;

/// Says to a test program what the routers are: processes where it is not set.
pub const VARIABLE: &str = "FERROLB_ROUTERS";
/// Its one value.
pub const CONTAINERS: &str = "docker";
/// Where Debian's engine is, and Docker's own.
const ENGINES: [&str; 2] = ["/usr/sbin/dockerd", "/usr/bin/dockerd"];
/// The package where there is no engine.
const PACKAGE: &str = "docker.io";

/// Whether the routers are to be containers.
///
/// # Errors
/// When the variable says what nobody knows.
pub fn is_asked_for() -> Result<bool> {
    match std::env::var_os(VARIABLE) {
        None => Ok(false),
        Some(value) if value == CONTAINERS => Ok(true),
        Some(value) => bail!("{VARIABLE} is {CONTAINERS} or not set, not {}", value.display()),
    }
}

/// The package that is missing, if one is.
pub fn missing() -> Vec<&'static str> {
    let there = ENGINES.iter().any(|engine| Path::new(engine).exists());
    if there { Vec::new() } else { vec![PACKAGE] }
}

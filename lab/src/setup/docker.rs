//! Selection of containers as routers in tests, and the package of the Docker engine that runs
//! them.

use anyhow::{Result, bail};
use std::path::Path;

/// Environment variable that selects containers as routers in a test program; if unset, the routers
/// are processes.
pub const ROUTERS_ENV: &str = "FERROLB_ROUTERS";
/// The only valid value of [`ROUTERS_ENV`].
pub const CONTAINERS: &str = "docker";
/// Path of Debian's engine, and of Docker's own.
const ENGINES: [&str; 2] = ["/usr/sbin/dockerd", "/usr/bin/dockerd"];
/// Package to install if there is no engine.
const PACKAGE: &str = "docker.io";

/// Returns whether [`ROUTERS_ENV`] selects containers as routers.
///
/// # Errors
/// If the variable has an invalid value.
pub fn is_requested() -> Result<bool> {
    match std::env::var_os(ROUTERS_ENV) {
        None => Ok(false),
        Some(value) if value == CONTAINERS => Ok(true),
        Some(value) => {
            bail!("{ROUTERS_ENV} must be {CONTAINERS} or unset, not {}", value.display())
        }
    }
}

/// Returns the package to install if there is no engine; otherwise an empty list.
pub fn missing() -> Vec<&'static str> {
    let installed = ENGINES.iter().any(|engine| Path::new(engine).exists());
    if installed { Vec::new() } else { vec![PACKAGE] }
}

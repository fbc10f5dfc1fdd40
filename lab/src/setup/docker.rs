//! Package of the Docker engine, for routers in containers.

use std::path::Path;

/// Path of Debian's engine, and of Docker's own.
const ENGINES: [&str; 2] = ["/usr/sbin/dockerd", "/usr/bin/dockerd"];
/// Package to install if there is no engine.
const PACKAGE: &str = "docker.io";

/// Returns the package to install if there is no engine; otherwise an empty list.
pub fn missing() -> Vec<&'static str> {
    let installed = ENGINES.iter().any(|engine| Path::new(engine).exists());
    if installed { Vec::new() } else { vec![PACKAGE] }
}

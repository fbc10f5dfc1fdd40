//! Generated pages of docs/reference/ whose sources are the programs: their flags and their
//! metrics. The tests need neither root nor a cluster.

mod flags;
#[path = "../tidy/generated.rs"]
mod generated;
mod metrics;

use std::path::{Path, PathBuf};

/// Part of the command that updates the pages, after `cargo test`.
const COMMAND: &str = "-p ferrolb-tests --test reference";

/// Returns the repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

//! `cargo lab clean`.

use anyhow::{Result, ensure};
use ferrolb_lab::setup::cache;
use ferrolb_lab::state;

/// Prints the size of the cache and removes it.
pub(crate) fn clean() -> Result<()> {
    let labs = state::labs().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    ensure!(
        labs.is_empty(),
        "labs that use the cache are running ({labs}): stop them first, `cargo lab --name NAME down`"
    );
    let (folder, parts) = (cache::folder()?, cache::parts()?);
    for part in &parts {
        println!("{:>8}  {}", cache::format_size(part.bytes), part.description);
    }
    cache::remove()?;
    let bytes = parts.iter().map(|part| part.bytes).sum();
    println!(
        "{:>8}  freed in {}; `cargo clean` removes Rust's own build directory",
        cache::format_size(bytes),
        folder.display()
    );
    Ok(())
}

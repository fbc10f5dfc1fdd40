//! `cargo lab clean`.

use anyhow::{Result, ensure};
use ferrolb_tests::setup::cache;
use ferrolb_tests::state;

/// Says what the cache takes, and frees it.
pub(crate) fn clean() -> Result<()> {
    let labs = state::labs().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    ensure!(
        labs.is_empty(),
        "labs run what would be removed ({labs}): take them down first, `cargo lab --name NAME down`"
    );
    let (folder, parts) = (cache::folder()?, cache::parts()?);
    for part in &parts {
        println!("{:>8}  {}", cache::spoken(part.bytes), part.what);
    }
    cache::free()?;
    let bytes = parts.iter().map(|part| part.bytes).sum();
    println!(
        "{:>8}  freed in {}; Rust's own build folder goes with `cargo clean`",
        cache::spoken(bytes),
        folder.display()
    );
    Ok(())
}

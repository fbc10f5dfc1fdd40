//! `cargo lab clean`.

use anyhow::Result;
use ferrolb_tests::setup::cache;

/// Says what the cache takes, and frees it.
pub(crate) fn clean() -> Result<()> {
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

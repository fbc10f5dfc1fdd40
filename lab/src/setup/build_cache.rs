//! Build cache: one directory per kind of program, with one build for each set of inputs. A build
//! holds a lock, writes to a temporary directory and renames it at the end, so that every existing
//! build is complete.

use super::cache;
use anyhow::{Context, Result};
use ferrolb_lab_launcher::first_run::UNFINISHED;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Hexadecimal digits of the key in a directory's name.
const KEY_DIGITS: usize = 16;

/// Inputs that determine the result of a build: name and content of each.
pub(super) type Inputs = Vec<(String, Vec<u8>)>;

/// Returns the directory with the programs, if a build of these inputs exists.
pub(super) fn find(cache_name: &str, inputs: &Inputs) -> Result<Option<PathBuf>> {
    let folder = cache::folder()?.join(cache_name).join(key(inputs));
    Ok(folder.is_dir().then_some(folder))
}

/// Returns the directory with the programs. If they are missing, `compile` builds them into the
/// directory in its argument.
pub(super) fn build(
    cache_name: &str,
    inputs: &Inputs,
    compile: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    if let Some(folder) = find(cache_name, inputs)? {
        return Ok(folder);
    }
    let (parent, key) = (cache::folder()?.join(cache_name), key(inputs));
    fs::create_dir_all(&parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = File::create(parent.join("lock"))?;
    // If another process held the lock, it may have built the same inputs.
    lock.lock().with_context(|| format!("cannot lock {}", parent.display()))?;
    if let Some(folder) = find(cache_name, inputs)? {
        return Ok(folder);
    }
    let (unfinished, folder) = (parent.join(format!("{UNFINISHED}{key}")), parent.join(&key));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    compile(&unfinished)?;
    fs::rename(&unfinished, &folder)?;
    Ok(folder)
}

/// Returns a key for a set of inputs. Lengths are hashed too, so that different sets never result
/// in the same bytes.
fn key(inputs: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    for (name, content) in inputs {
        hash.update(format!("{name} {}\n", content.len()));
        hash.update(content);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..KEY_DIGITS]
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(pairs: &[(&str, &str)]) -> Inputs {
        pairs
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn the_key_changes_with_every_input() {
        let base = key(&inputs(&[("a", "1"), ("b", "2")]));
        assert_eq!(base, key(&inputs(&[("a", "1"), ("b", "2")])));
        assert_eq!(base.len(), KEY_DIGITS);
        for other in [
            &[("a", "1"), ("b", "3")][..],
            &[("a", "1"), ("c", "2")],
            &[("a", "1")],
            &[("a", "1b 1\n2")],
        ] {
            assert_ne!(base, key(&inputs(other)), "{other:?}");
        }
    }
}

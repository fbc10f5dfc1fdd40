//! Build cache: one directory per kind of program, with one build for each set of inputs. A build
//! holds a lock, writes to a temporary directory and renames it at the end, so that every existing
//! build is complete.

use super::cache;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Hexadecimal digits of the key in a directory's name.
const KEY_DIGITS: usize = 16;

/// Inputs that determine the result of a build: name and content of each.
pub(super) type Inputs = Vec<(String, Vec<u8>)>;

/// Returns the directory with the programs, if a build of these inputs exists.
pub(super) fn built(shelf: &str, inputs: &Inputs) -> Result<Option<PathBuf>> {
    let folder = cache::folder()?.join(shelf).join(key(inputs));
    Ok(folder.is_dir().then_some(folder))
}

/// Returns the directory with the programs. If they are missing, `compile` builds them into the
/// directory that it is given.
pub(super) fn build(
    shelf: &str,
    inputs: &Inputs,
    compile: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    if let Some(folder) = built(shelf, inputs)? {
        return Ok(folder);
    }
    let (place, key) = (cache::folder()?.join(shelf), key(inputs));
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let lock = File::create(place.join("lock"))?;
    // Another build of the same inputs takes minutes; afterwards there is nothing left to do.
    lock.lock().with_context(|| format!("cannot lock {}", place.display()))?;
    if let Some(folder) = built(shelf, inputs)? {
        return Ok(folder);
    }
    let (aside, folder) = (place.join(format!("unfinished-{key}")), place.join(&key));
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    compile(&aside)?;
    fs::rename(&aside, &folder)?;
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

    fn set(pairs: &[(&str, &str)]) -> Inputs {
        pairs
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn every_input_changes_the_key_and_nothing_else_does() {
        let base = key(&set(&[("a", "1"), ("b", "2")]));
        assert_eq!(base, key(&set(&[("a", "1"), ("b", "2")])));
        assert_eq!(base.len(), KEY_DIGITS);
        for other in [
            &[("a", "1"), ("b", "3")][..],
            &[("a", "1"), ("c", "2")],
            &[("a", "1")],
            &[("a", "1b 1\n2")],
        ] {
            assert_ne!(base, key(&set(other)), "{other:?}");
        }
    }
}

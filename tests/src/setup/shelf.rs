//! The shelves of the cache: on each the programs of one kind, built once for each set of inputs. A build is locked against a second one,
//! done aside and renamed into place whole, so that a folder that is there is complete.

use super::cache;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// How much of the key names the folder, in hexadecimal digits.
const KEY_DIGITS: usize = 16;

/// All that decides what a build gives: each input's name and content.
pub(super) type Inputs = Vec<(String, Vec<u8>)>;

/// The folder with the programs, if a build of these very inputs is there.
pub(super) fn built(shelf: &str, inputs: &Inputs) -> Result<Option<PathBuf>> {
    let folder = cache::folder()?.join(shelf).join(key(inputs));
    Ok(folder.is_dir().then_some(folder))
}

/// The folder with the programs, which `compile` puts into the folder that it is given if they are not there.
pub(super) fn build(shelf: &str, inputs: &Inputs, compile: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if let Some(folder) = built(shelf, inputs)? {
        return Ok(folder);
    }
    let (place, key) = (cache::folder()?.join(shelf), key(inputs));
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let lock = File::create(place.join("lock"))?;
    // Another build of the same takes minutes; when it is done there is nothing left to do.
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

/// A name for a set of inputs: lengths go in too, so that no two sets run together into the same bytes.
fn key(inputs: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    for (name, content) in inputs {
        hash.update(format!("{name} {}\n", content.len()));
        hash.update(content);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..KEY_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Inputs {
        pairs.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())).collect()
    }

    #[test]
    fn every_input_changes_the_key_and_nothing_else_does() {
        let base = key(&set(&[("a", "1"), ("b", "2")]));
        assert_eq!(base, key(&set(&[("a", "1"), ("b", "2")])));
        assert_eq!(base.len(), KEY_DIGITS);
        for other in [&[("a", "1"), ("b", "3")][..], &[("a", "1"), ("c", "2")], &[("a", "1")], &[("a", "1b 1\n2")]] {
            assert_ne!(base, key(&set(other)), "{other:?}");
        }
    }
}

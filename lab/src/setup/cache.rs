//! Per-user cache: the built Kubernetes, GoBGP, kustomize, Helm and programs from crates.io, and
//! the Go build's own caches. Only `cargo lab clean` empties it.

use anyhow::{Context, Result, anyhow};
use ferrolb_lab_launcher::first_run;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Parts of the cache: directory, and description.
const PARTS: [(&str, &str); 10] = [
    (first_run::KUBERNETES_CACHE, "the built Kubernetes programs"),
    ("gobgp", "the built GoBGP"),
    ("kustomize", "the built kustomize"),
    ("helm", "the built Helm"),
    ("cargo-tools", "the built programs from crates.io"),
    ("kubeadm", "the parts of kubeadm machines"),
    ("network-plugins", "the images of network plugins"),
    ("user-mode-linux", "User Mode Linux"),
    ("go-build", "Go's build cache"),
    ("go-mod", "Go's module cache"),
];

/// A part of the cache and its disk usage.
#[derive(Debug, PartialEq, Eq)]
pub struct CachePart {
    pub description: &'static str,
    pub bytes: u64,
}

/// Returns the cache's directory: `$XDG_CACHE_HOME/ferrolb`, or `~/.cache/ferrolb`.
///
/// # Errors
/// If neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn folder() -> Result<PathBuf> {
    first_run::cache_folder()
        .ok_or_else(|| anyhow!("set HOME or XDG_CACHE_HOME: the lab caches its builds there"))
}

/// Returns the disk usage of each part.
///
/// # Errors
/// If there is no cache directory.
pub fn parts() -> Result<Vec<CachePart>> {
    let folder = folder()?;
    Ok(PARTS
        .iter()
        .map(|(name, description)| CachePart { description, bytes: disk_usage(&folder.join(name)) })
        .collect())
}

/// Removes the whole cache.
///
/// # Errors
/// If a file cannot be removed.
pub fn remove() -> Result<()> {
    let folder = folder()?;
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Returns the disk usage of everything under `path`, without following symlinks.
fn disk_usage(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let own = meta.blocks() * 512;
    let Ok(entries) = fs::read_dir(path) else { return own };
    own + entries
        .flatten()
        .map(|entry| if entry.path().is_symlink() { 0 } else { disk_usage(&entry.path()) })
        .sum::<u64>()
}

/// Formats a size for people.
pub fn format_size(bytes: u64) -> String {
    let megabytes = bytes / 1_000_000;
    if megabytes < 1_000 {
        format!("{megabytes} MB")
    } else {
        format!("{}.{} GB", megabytes / 1_000, megabytes / 100 % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_formatted_with_units() {
        for (bytes, expect) in [
            (0, "0 MB"),
            (999_999_999, "999 MB"),
            (1_000_000_000, "1.0 GB"),
            (3_650_000_000, "3.6 GB"),
        ] {
            assert_eq!(format_size(bytes), expect);
        }
    }

    #[test]
    fn disk_usage_does_not_follow_symlinks() {
        let folder =
            std::env::temp_dir().join(format!("ferrolb-cache-test-{}", std::process::id()));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/file"), vec![1; 100_000]).unwrap();
        let before = disk_usage(&folder);
        std::os::unix::fs::symlink("/usr/bin", folder.join("link")).unwrap();
        let after = disk_usage(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!((100_000..200_000).contains(&before), "{before}");
        assert_eq!(before, after);
    }
}

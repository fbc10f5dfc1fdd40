//! Files of the repository, for the other modules.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file.
pub(crate) struct TextFile {
    /// Path from the repository's root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Returns the repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("tests/tidy is in the root")
}

/// Returns all files whose names end in one of `endings` (".rs"), by path, without build output and
/// git's own.
pub(crate) fn files(endings: &[&str]) -> Vec<TextFile> {
    let root = root();
    let mut paths = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder can be read") {
            let entry = entry.expect("a folder can be read");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let is_folder = entry.file_type().expect("a file has a type").is_dir();
            match is_folder {
                true if name == "target" || name == ".git" => {}
                true => folders.push(entry.path()),
                false if endings.iter().any(|ending| name.ends_with(ending)) => {
                    paths.push(entry.path())
                }
                false => {}
            }
        }
    }
    paths.sort();
    assert!(!paths.is_empty(), "no {endings:?} in {}", root.display());
    let read = |path: PathBuf| TextFile {
        text: fs::read_to_string(&path).expect("a text file can be read"),
        path: path
            .strip_prefix(&root)
            .expect("it is in the root")
            .to_str()
            .expect("names are UTF-8")
            .to_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Fails with all problems at once, so that one run shows everything that needs a fix.
pub(crate) fn assert_none(problems: &[String], what_to_do: &str) {
    assert!(problems.is_empty(), "{what_to_do}\n  {}", problems.join("\n  "));
}

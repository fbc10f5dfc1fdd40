//! Access to the files of the repository, for the other modules.

use ferrolb_markdown::Page;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository.
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
        .expect("the repository has no root folder")
}

/// Returns all files whose names end in one of `endings`, such as ".rs", sorted by path. Skips the
/// folders `target` and `.git`.
pub(crate) fn files(endings: &[&str]) -> Vec<TextFile> {
    let root = root();
    let mut paths = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("cannot read a folder") {
            let entry = entry.expect("cannot read a folder");
            let name = entry.file_name().into_string().expect("a name is not UTF-8");
            let is_folder = entry.file_type().expect("a file has no type").is_dir();
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
    assert!(!paths.is_empty(), "there are no files {endings:?} in {}", root.display());
    let read = |path: PathBuf| TextFile {
        // Inputs of fuzz targets are not UTF-8.
        text: String::from_utf8_lossy(&fs::read(&path).expect("cannot read a file")).into_owned(),
        path: path
            .strip_prefix(&root)
            .expect("a file is outside of the root")
            .to_str()
            .expect("a name is not UTF-8")
            .to_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// Returns all pages of the repository, sorted by path.
pub(crate) fn pages() -> Vec<Page> {
    files(&[".md"]).iter().map(|file| Page::parse(&file.path, &file.text)).collect()
}

/// Fails with all problems at once if there are any. `instruction` is the first line of the
/// message.
pub(crate) fn assert_none(problems: &[String], instruction: &str) {
    assert!(problems.is_empty(), "{instruction}\n  {}", problems.join("\n  "));
}

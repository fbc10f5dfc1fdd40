//! License texts of all dependencies of a release, from the sources that the build used, and of the
//! libraries that the compilers add.

use super::crates::{Crate, Crates};
use super::sbom::{Dependency, GO_LIBRARY};
use crate::run;
use crate::setup::{go, repository, zig};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files with the texts: those of all dependencies, and those of Rust's own library.
pub(super) const FILES: [&str; 2] = ["THIRD-PARTY-LICENSES.txt", "RUST-LIBRARY-LICENSES.html"];
/// Files of zig with the licenses of the C libraries in the programs. Rust's own musl has the same
/// license.
const C_LIBRARIES: [(&str, &str); 3] = [
    ("musl", "lib/libc/musl/COPYRIGHT"),
    ("mingw-w64", "lib/libc/mingw/COPYING"),
    ("compiler-rt of zig", "LICENSE"),
];
/// File with the licenses of Rust's own library, in the folder of the compiler.
const RUST_LIBRARY: &str = "share/doc/rust/COPYRIGHT-library.html";
/// Beginnings of the names of files with a license or a notice, in lower case.
const NAMES: [&str; 5] = ["license", "licence", "copying", "notice", "unlicense"];
/// License of FerroLB. The file of the repository is also the text for a crate that has this
/// license and no file.
const OWN_LICENSE: &str = "Apache-2.0";

/// Writes the license texts of crates and of Go modules into the folder of a release. Crates of
/// this repository have its license, and are left out. Returns the number of the others.
///
/// # Errors
/// If a dependency has no license text.
pub fn write(
    all: &Crates,
    crates: &BTreeSet<Dependency>,
    modules: &BTreeSet<Dependency>,
    folder: &Path,
) -> Result<usize> {
    let mut texts = BTreeMap::new();
    for (dependency, source) in crates.iter().filter_map(|it| Some((it, all.get(it)?))) {
        if !source.is_own {
            texts.insert(dependency, crate_texts(source, all)?);
        }
    }
    for module in modules {
        texts.insert(module, texts_in(&module_folder(module)?)?);
    }
    let mut all = String::new();
    for (Dependency { name, version }, texts) in &texts {
        ensure!(!texts.is_empty(), "{name} {version} has no license text in its sources");
        writeln!(all, "==== {name} {version}\n\n{}", texts.join("\n"))?;
    }
    for (name, text) in c_libraries()? {
        writeln!(all, "==== {name}\n\n{text}")?;
    }
    let [file, file_of_rust] = FILES.map(|name| folder.join(name));
    fs::write(file, all)?;
    copy_rust_licenses(&file_of_rust)?;
    Ok(texts.len())
}

/// Returns the names and the license texts of the C libraries.
fn c_libraries() -> Result<Vec<(&'static str, String)>> {
    let folder = zig::install()?;
    let read = |(name, file): (&'static str, &str)| {
        let file = folder.join(file);
        let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        Ok((name, text))
    };
    C_LIBRARIES.into_iter().map(read).collect()
}

/// Copies the licenses of Rust's own library.
fn copy_rust_licenses(file: &Path) -> Result<()> {
    let mut rustc = Command::new("rustc");
    let root = run::run(rustc.current_dir(repository()).args(["--print", "sysroot"]))?;
    let source = Path::new(root.trim()).join(RUST_LIBRARY);
    fs::copy(&source, file).with_context(|| format!("{} cannot be copied", source.display()))?;
    Ok(())
}

/// Returns the texts of a crate: those in its folder, those of a crate of the same repository with
/// the same license, or the file of this repository.
fn crate_texts(source: &Crate, all: &Crates) -> Result<Vec<String>> {
    let is_sibling = |it: &&Crate| {
        !it.is_own
            && !it.repository.is_empty()
            && (&it.repository, &it.license) == (&source.repository, &source.license)
    };
    for folder in [source].into_iter().chain(all.values().filter(is_sibling)) {
        let texts = texts_in(&folder.folder)?;
        if !texts.is_empty() {
            return Ok(texts);
        }
    }
    let own = || fs::read_to_string(repository().join("LICENSE"));
    Ok(if source.license == OWN_LICENSE { vec![own()?] } else { Vec::new() })
}

/// Returns the folder with the sources of a Go module, and downloads them if they are missing.
fn module_folder(Dependency { name, version }: &Dependency) -> Result<PathBuf> {
    if name == GO_LIBRARY {
        // Go's own library has its license in the folder of Go.
        let root = run::run(go::command()?.args(["env", "GOROOT"]))?;
        return Ok(PathBuf::from(root.trim()));
    }
    go::source(name, &format!("v{version}"))
}

/// Returns the contents of all files with a license or a notice in a folder.
fn texts_in(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|begin| name.starts_with(begin)) && entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let read = |file: &PathBuf| Ok(String::from_utf8_lossy(&fs::read(file)?).into_owned());
    files.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_a_file_has_the_text_of_its_repository() {
        let folder = std::env::temp_dir().join(format!("ferrolb-licenses-{}", std::process::id()));
        let of = |name: &str, license: &str, repository: &str| {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).unwrap();
            let (license, repository) = (license.to_owned(), repository.to_owned());
            Crate { folder, is_own: false, license, repository }
        };
        let (with, without) = (of("with", "MIT", "r"), of("without", "MIT", "r"));
        fs::write(with.folder.join("LICENSE-MIT"), "mit").unwrap();
        fs::write(with.folder.join("readme"), "no").unwrap();
        let dependency = Dependency { name: "with".to_owned(), version: "1.0.0".to_owned() };
        let all = Crates::from([(dependency, with.clone())]);
        let texts = [with, without, of("other", "MIT", "other"), of("own", OWN_LICENSE, "other")]
            .map(|it| crate_texts(&it, &all).unwrap());
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(texts[0], ["mit"]);
        assert_eq!(texts[1], ["mit"]);
        assert!(texts[2].is_empty());
        assert!(texts[3][0].contains("Apache License"));
    }
}

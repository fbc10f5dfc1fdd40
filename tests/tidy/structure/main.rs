//! Prints the structure of FerroLB's products: code lines of each capability and crate, circles of
//! imports, type names that occur twice, and the types with the most methods. A developer runs it
//! before and after a change of the structure; no test depends on its numbers:
//! `cargo run -p ferrolb-tidy --bin structure`.

mod capabilities;
mod circles;
mod source;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tree.rs"]
mod tree;

use capabilities::CAPABILITIES;
use source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Folders of the products' crates.
const CRATES: [&str; 7] =
    ["proto", "core", "controller/core", "controller", "speaker/core", "speaker", "runtime"];
/// Number of types with the most methods that are printed.
const LARGEST_TYPES: usize = 8;

fn main() {
    let sources: Vec<Source> = tree::files(&[".rs"])
        .into_iter()
        .filter(|file| crate_of(&file.path).is_some() && !file.path.starts_with("proto/gobgp/"))
        .map(|file| Source::parse(&file.path, &file.text))
        .collect();
    print_capabilities(&sources);
    print_crates(&sources);
    print_circles(&sources);
    print_types(&sources);
}

/// Returns the folder of the crate to which a file belongs: the longest one.
fn crate_of(path: &str) -> Option<&'static str> {
    let folder = |it: &&&str| path.strip_prefix(**it).is_some_and(|rest| rest.starts_with('/'));
    CRATES.iter().filter(folder).max_by_key(|it| it.len()).copied()
}

fn print_capabilities(sources: &[Source]) {
    println!("{:48} {:>6} {:>6}", "capability", "code", "tests");
    let mut sums: BTreeMap<usize, [usize; 2]> = BTreeMap::new();
    for source in sources {
        let is_part = |prefixes: &&(&str, &[&str])| prefixes.1.iter().any(|it| source.is_in(it));
        let found = CAPABILITIES.iter().position(|it| is_part(&it));
        let sum = sums.entry(found.unwrap_or(CAPABILITIES.len())).or_default();
        *sum = [sum[0] + source.code_lines, sum[1] + source.test_lines];
    }
    for (index, [code, tests]) in &sums {
        let name = CAPABILITIES.get(*index).map_or("other", |(name, _)| name);
        println!("{name:48} {code:6} {tests:6}");
    }
}

fn print_crates(sources: &[Source]) {
    let mut sums: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        *sums.entry(crate_of(&source.path).unwrap_or_default()).or_default() += source.code_lines;
    }
    let all: usize = sums.values().sum();
    println!("\n{:48} {:>6} {:>6}", "crate", "code", "share");
    for (name, code) in &sums {
        println!("{name:48} {code:6} {:5}%", code * 100 / all.max(1));
    }
    println!("{:48} {all:6}", "all");
}

fn print_circles(sources: &[Source]) {
    let circles = circles::find(sources);
    println!("\ncircles of imports: {}", circles.len());
    circles.iter().for_each(|circle| println!("  {}", circle.join(", ")));
}

fn print_types(sources: &[Source]) {
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut methods: BTreeMap<(&str, &str), (usize, BTreeSet<&str>)> = BTreeMap::new();
    for source in sources {
        for name in &source.types {
            places.entry(name).or_default().insert(&source.path);
        }
        for (name, count) in &source.methods {
            let found = methods.entry((crate_of(&source.path).unwrap_or_default(), name));
            let (sum, files) = found.or_default();
            *sum += count;
            files.insert(&source.path);
        }
    }
    let doubled: Vec<_> = places.iter().filter(|(_, files)| files.len() > 1).collect();
    println!("\ntype names in several files: {}", doubled.len());
    for (name, files) in doubled {
        println!("  {name}: {}", files.iter().copied().collect::<Vec<_>>().join(", "));
    }
    let mut methods: Vec<_> = methods.into_iter().collect();
    methods.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    println!("\nmethods of the largest types, and their files");
    for ((of, name), (count, files)) in methods.into_iter().take(LARGEST_TYPES) {
        println!("  {of} {name}: {count} in {}", files.len());
    }
}

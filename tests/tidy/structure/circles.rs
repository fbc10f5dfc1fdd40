//! Circles of imports: files of which each imports from the next, and the last one from the first.
//! A file that only gives its children access to its own types is in no circle with them: a child
//! may import from the files above it.

use super::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the circles, the largest first. Each has the paths of its files.
pub(crate) fn find(sources: &[Source]) -> Vec<Vec<String>> {
    let modules: BTreeMap<Vec<&str>, &Source> =
        sources.iter().filter_map(|source| Some((module(&source.path)?, source))).collect();
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, source) in &modules {
        for import in &source.imports {
            let Some(target) = resolve(module, import, &modules) else { continue };
            let is_above = module.starts_with(&target);
            if !is_above && let Some(found) = modules.get(&target) {
                edges.entry(&source.path).or_default().insert(&found.path);
            }
        }
    }
    let reaches: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|from| (*from, reachable(from, &edges))).collect();
    let mut circles = BTreeSet::new();
    for (file, targets) in reaches.iter().filter(|(file, targets)| targets.contains(**file)) {
        let returns = |other: &&&str| reaches.get(**other).is_some_and(|it| it.contains(file));
        circles.insert(targets.iter().filter(returns).map(ToString::to_string).collect::<Vec<_>>());
    }
    let mut circles: Vec<_> = circles.into_iter().collect();
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

/// Returns the path of a file's module, which begins with the folder of its crate.
fn module(path: &str) -> Option<Vec<&str>> {
    let (of, rest) = path.split_once("/src/")?;
    let rest = rest.strip_suffix(".rs")?;
    let names = rest.split('/').filter(|name| !["lib", "main", "mod"].contains(name));
    Some(std::iter::once(of).chain(names).collect())
}

/// Returns the module from which a path imports: the longest beginning of the path that is one.
fn resolve<'a>(
    module: &[&'a str],
    import: &'a str,
    modules: &BTreeMap<Vec<&'a str>, &Source>,
) -> Option<Vec<&'a str>> {
    let mut base = module.to_vec();
    let mut names = import.split("::").peekable();
    match *names.peek()? {
        "crate" => {
            base.truncate(1);
            names.next();
        }
        "self" => _ = names.next(),
        "super" => {
            while names.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        first => {
            base.push(first);
            modules.get(&base)?;
            base.pop();
        }
    }
    let mut found = modules.contains_key(&base).then(|| base.clone());
    for name in names {
        base.push(name);
        if modules.contains_key(&base) {
            found = Some(base.clone());
        }
    }
    found
}

fn reachable<'a>(from: &'a str, edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        for target in edges.get(file).into_iter().flatten() {
            if found.insert(*target) {
                next.push(target);
            }
        }
    }
    found
}

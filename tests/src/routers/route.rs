//! What a router sees, in the form that all of them are brought into.

use anyhow::{Context, Result};
use std::net::IpAddr;

/// A path to a prefix, as a router has it from a neighbour.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Like `172.30.0.200/32`.
    pub prefix: String,
    pub next_hop: Option<IpAddr>,
    /// The nearest first.
    pub as_path: Vec<u32>,
    /// Like `64512:100`, sorted. The well-known have numbers, too: `65535:0` is graceful shutdown (RFC 8326).
    pub communities: Vec<String>,
    /// Like `64512:1:2`, sorted.
    pub large_communities: Vec<String>,
    /// What the router goes by, if it says so.
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
}

/// A neighbour that a router was told of, and how things stand with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    pub neighbour: IpAddr,
    pub established: bool,
}

/// The well-known communities (the IANA registry of them) that routers print by name, and as what FRR prints them.
const WELL_KNOWN: [(&str, &str); 7] = [
    ("graceful-shutdown", "65535:0"),
    ("accept-own", "65535:1"),
    ("llgr-stale", "65535:6"),
    ("blackhole", "65535:666"),
    ("no-export", "65535:65281"),
    ("no-advertise", "65535:65282"),
    ("local-AS", "65535:65283"),
];

/// A community by its numbers, whatever a router calls it.
pub(super) fn community(word: &str) -> String {
    let known = WELL_KNOWN.iter().find(|(name, _)| *name == word);
    known.map_or(word, |(_, numbers)| numbers).to_owned()
}

/// Numbers between spaces.
pub(super) fn numbers(text: &str) -> Result<Vec<u32>> {
    text.split_whitespace().map(|word| word.parse().with_context(|| format!("{word} is no AS number"))).collect()
}

/// Sorted, so that two routers' order makes no difference.
pub(super) fn sorted(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut words: Vec<String> = words.into_iter().collect();
    words.sort();
    words
}

//! Routes and sessions of a router, in a form that is common to all kinds.

use anyhow::{Context, Result};
use std::net::IpAddr;

/// A path to a prefix that a router received from a neighbor.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BgpRoute {
    /// Prefix such as `172.30.0.200/32`.
    pub prefix: String,
    pub next_hop: Option<IpAddr>,
    /// AS path, nearest AS first.
    pub as_path: Vec<u32>,
    /// Communities such as `64512:100`, sorted. Well-known communities also have numbers: `65535:0`
    /// is graceful shutdown (RFC 8326).
    pub communities: Vec<String>,
    /// Large communities such as `64512:1:2`, sorted.
    pub large_communities: Vec<String>,
    /// Local preference, if the router reports one.
    pub local_pref: Option<u32>,
    pub med: Option<u32>,
}

/// A configured neighbor of a router, with the state of its session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BgpSession {
    pub neighbor: IpAddr,
    pub established: bool,
}

/// Well-known communities (IANA registry) that routers print by name: the name that FRR prints, and
/// the numbers.
const WELL_KNOWN: [(&str, &str); 7] = [
    ("graceful-shutdown", "65535:0"),
    ("accept-own", "65535:1"),
    ("llgr-stale", "65535:6"),
    ("blackhole", "65535:666"),
    ("no-export", "65535:65281"),
    ("no-advertise", "65535:65282"),
    ("local-AS", "65535:65283"),
];

/// Returns the numeric form of a community, from a name or a number.
pub(super) fn community(word: &str) -> String {
    let known = WELL_KNOWN.iter().find(|(name, _)| *name == word);
    known.map_or(word, |(_, numbers)| numbers).to_owned()
}

/// Parses numbers separated by spaces.
pub(super) fn numbers(text: &str) -> Result<Vec<u32>> {
    text.split_whitespace()
        .map(|word| word.parse().with_context(|| format!("{word} is not an AS number")))
        .collect()
}

/// Sorts words, so that the routers' order makes no difference.
pub(super) fn sorted(words: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut words: Vec<String> = words.into_iter().collect();
    words.sort();
    words
}

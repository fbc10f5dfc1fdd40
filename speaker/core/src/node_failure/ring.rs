//! Ring of all nodes: each node watches the ones that follow it. Pure.
//!
//! The order in the ring depends on a hash of the names, so that nodes which are next to each other
//! in a rack are not watched by each other alone.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Returns the other nodes in the order of the ring, beginning with the one that follows `own`.
#[must_use]
pub fn successors<'a>(own: &str, nodes: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<str>> {
    let position = |name: &str| <[u8; 32]>::from(Sha256::digest(name));
    let mut ring: Vec<_> =
        nodes.filter(|name| ***name != *own).map(|name| (position(name), name)).collect();
    ring.sort_unstable();
    let start = ring.partition_point(|(at, name)| (at, &***name) < (&position(own), own));
    ring.rotate_left(start);
    ring.into_iter().map(|(_, name)| Arc::clone(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_node_follows_three_others() {
        let nodes: Vec<Arc<str>> = (0..50).map(|n| format!("node{n}").into()).collect();
        let mut watchers = BTreeMap::<Arc<str>, usize>::new();
        for own in &nodes {
            let watched = successors(own, nodes.iter());
            assert_eq!(watched.len(), nodes.len() - 1);
            assert!(!watched.contains(own));
            for name in watched.into_iter().take(3) {
                *watchers.entry(name).or_default() += 1;
            }
        }
        assert_eq!(watchers.len(), nodes.len());
        assert!(watchers.values().all(|count| *count == 3), "{watchers:?}");
    }

    #[test]
    fn a_node_alone_or_unknown_has_the_others_as_successors() {
        let nodes: Vec<Arc<str>> = ["a", "b"].map(Arc::from).into();
        assert!(successors("a", nodes[..1].iter()).is_empty());
        assert_eq!(successors("new", nodes.iter()).len(), 2);
    }
}

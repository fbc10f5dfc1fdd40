//! Sorted map whose clones share memory. A comparison of two clones costs as much as what differs,
//! however many entries both have. Pure; the speaker's plan passes such maps to its drivers.
//!
//! The entries are in chunks. A change copies one chunk and the list of chunks, and the clones
//! share all others. A comparison by the published libraries of this kind skips no shared part.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Maximum number of entries in a chunk.
const CHUNK_MAX: usize = 64;
/// Two neighboring chunks with at most this number of entries together become one.
const MERGE_MAX: usize = CHUNK_MAX / 2;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// Sorted map whose clones share memory; see the module's documentation.
pub struct SharedMap<K, V> {
    /// Chunks in the order of their keys. None is empty.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

/// Entry that differs between two maps.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'a, K, V> {
    /// Key of the entry.
    pub key: &'a K,
    /// Value in the earlier map. `None`: the entry is new.
    pub before: Option<&'a V>,
    /// Value in the later map. `None`: the entry was removed.
    pub now: Option<&'a V>,
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Returns the value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, found) = self.locate(key)?;
        found.ok().map(|index| &self.chunks[chunk][index].1)
    }

    /// Returns whether the map has an entry for a key.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Returns the entries with greater keys, in the order of their keys. `None`: all entries.
    pub fn after<'a, Q: Ord + ?Sized>(
        &'a self,
        key: Option<&Q>,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let place = key.and_then(|key| self.locate(key));
        let (chunk, entry) = place.map_or((0, 0), |(chunk, found)| {
            (chunk, found.map_or_else(|place| place, |entry| entry + 1))
        });
        let mut chunks = self.chunks[chunk..].iter();
        let first = chunks.next().into_iter().flat_map(move |chunk| &chunk[entry..]);
        first.chain(chunks.flat_map(|chunk| chunk.iter())).map(|(key, value)| (key, value))
    }

    /// Sets the value of a key, and returns the previous value.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some((index, found)) = self.locate(&key) else {
            *self = [(key, value)].into_iter().collect();
            return None;
        };
        let chunks = Arc::make_mut(&mut self.chunks);
        let is_last = index + 1 == chunks.len();
        let chunk = Arc::make_mut(&mut chunks[index]);
        match found {
            Ok(entry) => Some(std::mem::replace(&mut chunk[entry].1, value)),
            Err(entry) => {
                self.len += 1;
                if chunk.len() < CHUNK_MAX {
                    chunk.insert(entry, (key, value));
                    return None;
                }
                // A new map usually gets ascending keys. They leave full chunks behind.
                let middle = if is_last && entry == CHUNK_MAX { entry } else { CHUNK_MAX / 2 };
                let mut upper = chunk.split_off(middle);
                if entry < middle {
                    chunk.insert(entry, (key, value));
                } else {
                    upper.insert(entry - middle, (key, value));
                }
                chunk.shrink_to_fit();
                chunks.insert(index + 1, Arc::new(upper));
                None
            }
        }
    }

    /// Removes a key, and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (index, Ok(entry)) = self.locate(key)? else { return None };
        let chunks = Arc::make_mut(&mut self.chunks);
        let (_, value) = Arc::make_mut(&mut chunks[index]).remove(entry);
        self.len -= 1;
        if chunks[index].is_empty() {
            chunks.remove(index);
        } else {
            merge_small(chunks, index);
            merge_small(chunks, index.saturating_sub(1));
        }
        Some(value)
    }

    /// Returns the chunk that contains a key or its place, and the position in this chunk: `Ok` of
    /// the entry, `Err` of the place. Returns `None` if the map is empty.
    fn locate<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(usize, Result<usize, usize>)>
    where
        K: Borrow<Q>,
    {
        let after = self.chunks.partition_point(|chunk| chunk[0].0.borrow() <= key);
        let index = after.saturating_sub(1);
        let chunk = self.chunks.get(index)?;
        Some((index, chunk.binary_search_by(|(other, _)| other.borrow().cmp(key))))
    }
}

/// Joins a chunk and the next one if both are small.
fn merge_small<K: Clone, V: Clone>(chunks: &mut Vec<Chunk<K, V>>, index: usize) {
    if let Some(next) = chunks.get(index + 1)
        && chunks[index].len() + next.len() <= MERGE_MAX
    {
        let next = chunks.remove(index + 1);
        Arc::make_mut(&mut chunks[index]).extend_from_slice(&next);
    }
}

impl<K, V> SharedMap<K, V> {
    /// Returns the number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the map has no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns all entries, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// Returns all keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// Returns all values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// Returns the entries that differ from those of an earlier map, in the order of their keys.
    pub fn differences<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = Difference<'a, K, V>> {
        Differences { now: Cursor::new(self), before: Cursor::new(before) }
    }
}

/// Position in a map: the next entry.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    entry: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(map: &'a SharedMap<K, V>) -> Self {
        Self { chunks: &map.chunks, entry: 0 }
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        self.chunks.first().map(|chunk| &chunk[self.entry])
    }

    fn advance(&mut self) {
        self.entry += 1;
        if self.chunks.first().is_some_and(|chunk| chunk.len() == self.entry) {
            (self.chunks, self.entry) = (&self.chunks[1..], 0);
        }
    }

    /// Returns the next chunk, if the position is at its start.
    fn next_chunk(&self) -> Option<&'a Chunk<K, V>> {
        self.chunks.first().filter(|_| self.entry == 0)
    }
}

struct Differences<'a, K, V> {
    now: Cursor<'a, K, V>,
    before: Cursor<'a, K, V>,
}

impl<'a, K: Ord, V: PartialEq> Iterator for Differences<'a, K, V> {
    type Item = Difference<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let (Some(now), Some(before)) = (self.now.next_chunk(), self.before.next_chunk())
                && Arc::ptr_eq(now, before)
            {
                self.now.chunks = &self.now.chunks[1..];
                self.before.chunks = &self.before.chunks[1..];
            }
            let (now, before) = (self.now.peek(), self.before.peek());
            let order = match (now, before) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((now, _)), Some((before, _))) => now.cmp(before),
            };
            let now = now.filter(|_| order.is_le());
            let before = before.filter(|_| order.is_ge());
            now.iter().for_each(|_| self.now.advance());
            before.iter().for_each(|_| self.before.advance());
            let (key, _) = now.or(before)?;
            let (now, before) = (now.map(|entry| &entry.1), before.map(|entry| &entry.1));
            if now != before {
                return Some(Difference { key, before, now });
            }
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SharedMap<K, V> {
    /// Collects entries in ascending order of their keys, each key once.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries = entries.into_iter().peekable();
        let (mut chunks, mut len) = (Vec::new(), 0);
        while entries.peek().is_some() {
            let chunk: Vec<_> = entries.by_ref().take(CHUNK_MAX).collect();
            debug_assert!(chunk.is_sorted_by(|a, b| a.0 < b.0), "the keys are ascending");
            len += chunk.len();
            chunks.push(Arc::new(chunk));
        }
        Self { chunks: Arc::new(chunks), len }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
            || (self.len == other.len && self.differences(other).next().is_none())
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;

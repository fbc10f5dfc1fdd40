//! Namespace and name of a Kubernetes object. Pure; each state finds its objects by their keys.

use std::fmt;
use std::sync::Arc;

use kube::core::ObjectMeta;
use serde::{Serialize, Serializer};

/// The namespace and name of an object. Cluster-scoped objects have an empty namespace.
///
/// The value is one string, because a speaker stores 20,000 keys. Keys sort by namespace, then by
/// name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

/// Separates the namespace and the name in a [`Key`]. Neither contains it, and it sorts before all
/// of their characters.
const KEY_SEPARATOR: &str = "\0";

impl Key {
    /// Returns the key of the object that has this metadata.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }

    /// Makes a key from a namespace and a name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self([namespace, name].join(KEY_SEPARATOR).into())
    }

    /// Returns `metadata.namespace`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// Returns `metadata.name`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once(KEY_SEPARATOR).unwrap_or_default()
    }
}

impl From<Key> for Box<str> {
    /// Returns the name, without the namespace.
    fn from(key: Key) -> Self {
        key.name().into()
    }
}

impl From<Key> for Arc<str> {
    /// Returns the name, without the namespace.
    fn from(key: Key) -> Self {
        key.name().into()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            ("", name) => f.write_str(name),
            (namespace, name) => write!(f, "{namespace}/{name}"),
        }
    }
}

impl Serialize for Key {
    /// Writes `NAMESPACE/NAME`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Default for Key {
    /// Returns the key that sorts before all others.
    fn default() -> Self {
        Self::new("", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_namespace_and_then_by_name() {
        let mut keys = [("a-b", "a"), ("a", "b"), ("", "z"), ("a", "a-b"), ("a", "a")]
            .map(|(namespace, name)| Key::new(namespace, name));
        keys.sort();
        assert_eq!(keys.each_ref().map(Key::to_string), ["z", "a/a", "a/a-b", "a/b", "a-b/a"]);
        assert_eq!((keys[3].namespace(), keys[3].name()), ("a", "b"));
        assert!(keys.iter().all(|key| Key::default() < *key));
    }
}

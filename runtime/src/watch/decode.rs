//! Reads one object of a list, or one line of a watch, from its text. Pure.
//!
//! An object is decoded straight from its text, without a tree of values in between: a Service may
//! have 150,000 labels.

use ferrolb_proto::facts::Key;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Names,
}

/// A few fields of `metadata`, of an object or of a list.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Names {
    namespace: Option<String>,
    name: Option<String>,
    resource_version: Option<String>,
    r#continue: Option<String>,
}

impl Names {
    pub(super) fn key(&self) -> Key {
        Key::new(self.namespace.as_deref().unwrap_or_default(), self.name.as_deref().unwrap_or_default())
    }

    /// Where a watch goes on.
    ///
    /// # Errors
    /// The field is not there.
    pub(super) fn version(self) -> Result<String, serde_json::Error> {
        let version = self.resource_version.filter(|version| !version.is_empty());
        version.ok_or_else(|| serde::de::Error::custom("no metadata.resourceVersion in an answer of the API server"))
    }

    /// Where a list goes on; none: this is its last page.
    pub(super) fn next_page(&mut self) -> Option<String> {
        self.r#continue.take().filter(|token| !token.is_empty())
    }
}

/// Reads the `metadata` of an object, or of a list.
///
/// # Errors
/// The text is neither.
pub(super) fn head(text: &[u8]) -> Result<Names, serde_json::Error> {
    serde_json::from_slice(text).map(|Head { metadata }| metadata)
}

#[derive(Deserialize)]
struct Line<T> {
    object: T,
}

#[derive(Deserialize)]
struct HeadLine {
    r#type: String,
    object: Head,
}

/// A line of a watch: its kind, and the head of its object.
#[derive(Debug)]
pub(super) enum Event {
    /// The object is there.
    Applied(Names),
    /// The object is gone.
    Deleted(Names),
    /// Nothing changed up to this version.
    Bookmark(Names),
    /// The watch has failed.
    Failed(Box<Status>),
}

/// Reads the head of a line.
///
/// # Errors
/// The line is not a watch event.
pub(super) fn event(line: &[u8]) -> Result<Event, serde_json::Error> {
    let HeadLine { r#type, object: Head { metadata } } = serde_json::from_slice(line)?;
    Ok(match &*r#type {
        "ADDED" | "MODIFIED" => Event::Applied(metadata),
        "DELETED" => Event::Deleted(metadata),
        "BOOKMARK" => Event::Bookmark(metadata),
        "ERROR" => Event::Failed(serde_json::from_slice::<Line<_>>(line)?.object),
        other => return Err(serde::de::Error::custom(format!("a watch event of the type {other:?}"))),
    })
}

/// The place of an object in a text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The object is the text: an element of a list.
    Whole,
    /// The object is the field `object` of the text: a line of a watch.
    Line,
}

/// Decodes an object.
///
/// # Errors
/// The field's path and what is wrong with it: `spec.addresses[0]: invalid type: integer...`.
pub(super) fn object<K: DeserializeOwned>(text: &[u8], place: Place) -> Result<K, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = match place {
        Place::Whole => serde_path_to_error::deserialize(&mut json),
        Place::Line => serde_path_to_error::deserialize(&mut json).map(|Line { object }| object),
    };
    read.map_err(|error| {
        let path = error.path().to_string();
        let path = path.strip_prefix("object.").unwrap_or(&path);
        let why = error.inner().to_string();
        // Not the column: it changes with each write of the object, and what is wrong does not.
        format!("{path}: {}", why.rsplit_once(" at line ").map_or(&*why, |(why, _)| why))
    })
}

//! Decodes one object of a list, or one line of a watch, from its text. Pure.
//!
//! An object is decoded directly from its text, without an intermediate tree of values, because a
//! Service may have 150,000 labels.

use ferrolb_proto::facts::Key;
use kube::core::Status;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct MetadataOnly {
    #[serde(default)]
    metadata: ListMetadata,
}

/// The fields that a watch reads from the `metadata` of an object or of a list.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMetadata {
    namespace: Option<String>,
    name: Option<String>,
    resource_version: Option<String>,
    r#continue: Option<String>,
}

impl ListMetadata {
    pub(super) fn key(&self) -> Key {
        Key::new(
            self.namespace.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default(),
        )
    }

    /// Returns the resource version from which a watch continues.
    ///
    /// # Errors
    /// The field is missing.
    pub(super) fn version(self) -> Result<String, serde_json::Error> {
        let version = self.resource_version.filter(|version| !version.is_empty());
        version.ok_or_else(|| {
            serde::de::Error::custom("no metadata.resourceVersion in a response of the API server")
        })
    }

    /// Returns the token of the next page of a list; `None` on its last page.
    pub(super) fn next_page(&mut self) -> Option<String> {
        self.r#continue.take().filter(|token| !token.is_empty())
    }
}

/// Decodes the `metadata` of an object, or of a list.
///
/// # Errors
/// The text is neither an object nor a list.
pub(super) fn head(text: &[u8]) -> Result<ListMetadata, serde_json::Error> {
    serde_json::from_slice(text).map(|MetadataOnly { metadata }| metadata)
}

#[derive(Deserialize)]
struct WatchLine<T> {
    object: T,
}

#[derive(Deserialize)]
struct HeadLine {
    r#type: String,
    object: MetadataOnly,
}

/// A line of a watch: its type, and the `metadata` of its object.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// The object was added or modified.
    Applied(ListMetadata),
    /// The object was deleted.
    Deleted(ListMetadata),
    /// The API server has sent all changes up to this resource version.
    Bookmark(ListMetadata),
    /// The watch has failed with this status.
    Failed(Box<Status>),
}

/// Decodes the type of a line and the `metadata` of its object.
///
/// # Errors
/// The line is not a watch event.
pub(super) fn event(line: &[u8]) -> Result<WatchEvent, serde_json::Error> {
    let HeadLine { r#type, object: MetadataOnly { metadata } } = serde_json::from_slice(line)?;
    Ok(match &*r#type {
        "ADDED" | "MODIFIED" => WatchEvent::Applied(metadata),
        "DELETED" => WatchEvent::Deleted(metadata),
        "BOOKMARK" => WatchEvent::Bookmark(metadata),
        "ERROR" => WatchEvent::Failed(serde_json::from_slice::<WatchLine<_>>(line)?.object),
        other => {
            return Err(serde::de::Error::custom(format!("a watch event of the type {other:?}")));
        }
    })
}

/// The position of an object in a JSON text.
#[derive(Clone, Copy, Debug)]
pub(super) enum ObjectPlace {
    /// The text is the object: an element of a list.
    Whole,
    /// The object is the field `object` of the text: a line of a watch.
    Line,
}

/// Decodes a whole object.
///
/// # Errors
/// The path of the field and the error, such as `spec.addresses[0]: invalid type: integer...`.
pub(super) fn object<K: DeserializeOwned>(text: &[u8], place: ObjectPlace) -> Result<K, String> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = match place {
        ObjectPlace::Whole => serde_path_to_error::deserialize(&mut json),
        ObjectPlace::Line => {
            serde_path_to_error::deserialize(&mut json).map(|WatchLine { object }| object)
        }
    };
    read.map_err(|error| {
        let path = error.path().to_string();
        let path = path.strip_prefix("object.").unwrap_or(&path);
        let why = error.inner().to_string();
        // Omit the column: it changes with each write of the object, although the error remains the
        // same.
        format!("{path}: {}", why.rsplit_once(" at line ").map_or(&*why, |(why, _)| why))
    })
}

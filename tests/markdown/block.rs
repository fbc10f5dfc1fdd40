//! Code blocks of a page, and their errors.

use crate::marker::{Marker, Place, Topology};
use std::{error, fmt};

/// Language of blocks with commands, and of objects.
pub const SHELL: &str = "sh";
pub const YAML: &str = "yaml";

/// A code block of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Line of the opening fence, counted from 1.
    pub line: usize,
    /// The first word after the fence, or an empty string.
    pub language: String,
    /// Content without the indentation of the fence.
    pub text: String,
    pub marker: Option<Marker>,
    /// The last heading before the block, with its markup.
    pub heading: String,
    /// Output that the page shows for the commands.
    pub output: Option<String>,
    /// The first error of the block. A block with a wrong marker has no marker.
    pub error: Option<BlockError>,
}

impl Block {
    /// Returns the host on which the block runs; `None`: no test runs it.
    pub fn place(&self) -> Option<Place> {
        match self.marker {
            Some(Marker::Run(place)) => Some(place),
            _ => None,
        }
    }

    /// Returns whether the block runs in this topology.
    pub fn runs_in(&self, topology: Topology) -> bool {
        self.place().is_some_and(|place| place.topology() == topology)
    }

    /// Returns whether the text has the form of Kubernetes objects.
    pub fn has_kind(&self) -> bool {
        self.text.lines().any(|line| line.starts_with("kind:"))
    }

    /// Returns whether the block contains Kubernetes objects that an API server must accept.
    pub fn is_applied(&self) -> bool {
        let excluded = matches!(self.marker, Some(Marker::NotApplied(_) | Marker::HelmValues));
        self.language == YAML && !excluded && self.has_kind()
    }
}

/// Error of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The marker `run` has this name, which is no place.
    UnknownPlace(String),
    UnknownMarker(String),
    /// This marker must have a reason.
    NoReason(String),
    /// The page or the item of a list ends before the closing fence.
    NoEnd,
    /// Other text stands between commands that a test runs and this output.
    OutputApart,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPlace(name) => {
                let names = Place::ALL.map(Place::name).join("|");
                write!(f, "no test runs blocks in {name:?}: write <!-- run: {names} -->")
            }
            Self::UnknownMarker(marker) => write!(
                f,
                "the marker {marker:?} is unknown: write <!-- run: PLACE -->, \
                 <!-- not run: REASON -->, <!-- not applied: REASON --> or <!-- helm values -->"
            ),
            Self::NoReason(marker) => {
                write!(f, "the marker {marker:?} states no reason: write it after the colon")
            }
            Self::NoEnd => f.write_str("the block has no end: add the closing fence"),
            Self::OutputApart => f.write_str(
                "the block does not directly follow its commands: move the text between them, or \
                 write <!-- not run: REASON --> before an output that no test compares",
            ),
        }
    }
}

impl error::Error for BlockError {}

#[cfg(test)]
mod tests {
    use crate::Page;

    #[test]
    fn only_objects_without_another_marker_are_applied() {
        for (marker, language, text, expect) in [
            ("", "yaml", "a: 1\nkind: A", true),
            ("", "yaml", "a:\n  kind: A", false),
            ("", "sh", "kind: A", false),
            ("<!-- run: lab -->", "yaml", "kind: A", true),
            ("<!-- not applied: a patch -->", "yaml", "kind: A", false),
            ("<!-- helm values -->", "yaml", "kind: A", false),
        ] {
            let page = Page::parse("p.md", &format!("{marker}\n```{language}\n{text}\n```\n"));
            assert_eq!(page.blocks[0].is_applied(), expect, "{marker} {language} {text}");
        }
    }
}

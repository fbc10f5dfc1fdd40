//! The fact of a Community: names for BGP communities, with their values.

use super::kind::custom_resource;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::ObservedStatus;
use crate::api;

/// The value of a community, as routes carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommunityValue {
    /// RFC 1997: `A:B`.
    Standard(u16, u16),
    /// RFC 8092: `large:A:B:C`.
    Large(u32, u32, u32),
}

/// The error for a text that is not a community value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write A:B with numbers up to 65535, or large:A:B:C with numbers up to 4294967295")]
pub struct CommunityError;

impl FromStr for CommunityValue {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let parts: Vec<_> = text.split(':').collect();
        let large = |part: &str| part.parse().map_err(|_| CommunityError);
        let standard = |part: &str| part.parse().map_err(|_| CommunityError);
        match parts.as_slice() {
            ["large", a, b, c] => Ok(Self::Large(large(a)?, large(b)?, large(c)?)),
            [a, b] => Ok(Self::Standard(standard(a)?, standard(b)?)),
            _ => Err(CommunityError),
        }
    }
}

impl fmt::Display for CommunityValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "large:{a}:{b}:{c}"),
        }
    }
}

/// The reason why a Community by itself is invalid, independent of other objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunityProblem {
    /// An entry has no name.
    ///
    /// Action: Name the entry, or remove it.
    #[error("spec.communities: an entry has no name: give it one, or remove it")]
    MissingName,
    /// A value is neither `A:B` (RFC 1997) nor `large:A:B:C` (RFC 8092).
    ///
    /// Action: Write one of these forms.
    #[error("spec.communities: the value of {name:?} is {value:?}: {CommunityError}")]
    Value {
        /// The name of the entry.
        name: Box<str>,
        /// The invalid value.
        value: Box<str>,
    },
    /// Two entries have the same name.
    ///
    /// Action: Write the name once.
    #[error("spec.communities: name {0:?} occurs twice: write it once")]
    DuplicateName(Box<str>),
    /// The object does not match the schema of its kind.
    #[error("the object cannot be read: {0}. Apply the CRDs of this version")]
    Unreadable(Box<str>),
}

/// The fact of a Community.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Community {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// The value of each name. Invalid entries are left out.
    pub aliases: BTreeMap<Box<str>, CommunityValue>,
    /// The reason why the Community is invalid (the first reason), or `None`. The valid entries are
    /// used nevertheless.
    pub problem: Option<CommunityProblem>,
    /// The status as read from the API server.
    pub status: ObservedStatus<api::CommunityStatus>,
}

impl From<api::CommunityObject> for Community {
    fn from(object: api::CommunityObject) -> Self {
        let (mut aliases, mut problem) = (BTreeMap::new(), None);
        for api::CommunityAlias { name, value } in object.spec.unwrap_or_default().communities {
            let name: Box<str> = name.into();
            let entry_problem = match value.parse() {
                _ if name.is_empty() => Some(CommunityProblem::MissingName),
                Err(CommunityError) => Some(CommunityProblem::Value { name, value: value.into() }),
                Ok(_) if aliases.contains_key(&name) => Some(CommunityProblem::DuplicateName(name)),
                Ok(value) => {
                    aliases.insert(name, value);
                    None
                }
            };
            problem = problem.or(entry_problem);
        }
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            aliases,
            problem,
            status: ObservedStatus(object.status.unwrap_or_default()),
        }
    }
}

custom_resource!(Community.name: CommunityObject, Community, "Communities");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn community(entries: &[(&str, &str)]) -> Community {
        let entries: Vec<_> =
            entries.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let object = json!({"metadata": {"name": "c"}, "spec": {"communities": entries}});
        serde_json::from_value::<api::CommunityObject>(object).expect("community").into()
    }

    #[test]
    fn aliases_are_decoded_and_invalid_ones_are_problems() {
        let valid = community(&[("a", "65535:0"), ("b", "large:1:4294967295:3")]);
        assert_eq!((valid.problem, valid.aliases.len()), (None, 2));
        assert_eq!(
            Community::from(
                serde_json::from_value::<api::CommunityObject>(json!({"metadata": {}})).unwrap()
            )
            .problem,
            None
        );
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("a", "1:2"), ("a", "1:3")], "occurs twice"),
            (&[("", "1:2")], "has no name"),
            (&[("a", "65536:1")], "up to 65535"),
            (&[("a", "1")], "up to 65535"),
            (&[("a", "1:2:3")], "large:A:B:C"),
            (&[("a", "large:1:2")], "large:A:B:C"),
            (&[("a", "large:1:2:4294967296")], "large:A:B:C"),
            (&[("a", "small:1:2:3")], "large:A:B:C"),
        ];
        for (entries, why) in cases {
            let problem =
                community(entries).problem.map(|problem| problem.to_string()).unwrap_or_default();
            assert!(
                problem.contains(why),
                "the problem of {entries:?} contains {why:?}: {problem}"
            );
        }
    }
}

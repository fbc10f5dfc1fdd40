//! A Community, decoded for decisions: its names, and what they stand for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::api;

/// A community, as it is sent with a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommunityValue {
    /// RFC 1997: `A:B`.
    Standard(u16, u16),
    /// RFC 8092: `large:A:B:C`.
    Large(u32, u32, u32),
}

/// A text is no community by itself.
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

/// Something that is wrong with a Community by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunityProblem {
    /// An entry without a name.
    #[error("spec.communities: an entry has no name: give it one, or remove it")]
    Nameless,
    /// A value that is no BGP community.
    #[error("spec.communities: the value of {name:?} is {value:?}: {CommunityError}")]
    Value {
        /// The entry's name.
        name: Box<str>,
        /// Its value.
        value: Box<str>,
    },
    /// A name that comes twice.
    #[error("spec.communities: the name {0:?} comes twice: write it once")]
    Twice(Box<str>),
    /// The object does not have the shape of the kind.
    #[error("the object cannot be read: {0}")]
    Unreadable(Box<str>),
}

/// What we know of a Community.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Community {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// The names it gives, and what they stand for.
    pub aliases: BTreeMap<Box<str>, CommunityValue>,
    /// What is wrong with it, if anything.
    pub problem: Option<CommunityProblem>,
    /// The status it has.
    pub status: api::CommunityStatus,
}

impl From<api::Aliases> for Community {
    fn from(object: api::Aliases) -> Self {
        let (mut aliases, mut problem) = (BTreeMap::new(), None);
        for api::CommunityAlias { name, value } in object.spec.unwrap_or_default().communities {
            let name: Box<str> = name.into();
            let fault = match value.parse() {
                _ if name.is_empty() => Some(CommunityProblem::Nameless),
                Err(CommunityError) => Some(CommunityProblem::Value { name, value: value.into() }),
                Ok(_) if aliases.contains_key(&name) => Some(CommunityProblem::Twice(name)),
                Ok(value) => {
                    aliases.insert(name, value);
                    None
                }
            };
            problem = problem.or(fault);
        }
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            generation: object.metadata.generation.unwrap_or(0),
            aliases,
            problem,
            status: object.status.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn community(entries: &[(&str, &str)]) -> Community {
        let entries: Vec<_> = entries.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let object = json!({"metadata": {"name": "c"}, "spec": {"communities": entries}});
        serde_json::from_value::<api::Aliases>(object).expect("community").into()
    }

    #[test]
    fn names_of_communities_are_read_and_what_is_no_community_is_said() {
        let sound = community(&[("a", "65535:0"), ("b", "large:1:4294967295:3")]);
        assert_eq!((sound.problem, sound.aliases.len()), (None, 2));
        assert_eq!(
            Community::from(serde_json::from_value::<api::Aliases>(json!({"metadata": {}})).unwrap()).problem,
            None
        );
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("a", "1:2"), ("a", "1:3")], "comes twice"),
            (&[("", "1:2")], "has no name"),
            (&[("a", "65536:1")], "up to 65535"),
            (&[("a", "1")], "up to 65535"),
            (&[("a", "1:2:3")], "large:A:B:C"),
            (&[("a", "large:1:2")], "large:A:B:C"),
            (&[("a", "large:1:2:4294967296")], "large:A:B:C"),
            (&[("a", "small:1:2:3")], "large:A:B:C"),
        ];
        for (entries, why) in cases {
            let problem = community(entries).problem.map(|problem| problem.to_string()).unwrap_or_default();
            assert!(problem.contains(why), "{entries:?}: {problem}");
        }
    }
}

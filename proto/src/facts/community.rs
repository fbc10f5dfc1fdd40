//! A Community, decoded for decisions: its names, and what is wrong with what they stand for.

use std::collections::BTreeSet;

use crate::api;

/// Something that is wrong with a Community by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunityProblem {
    /// An entry without a name.
    #[error("spec.communities: an entry has no name: give it one, or remove it")]
    Nameless,
    /// A value that is no BGP community.
    #[error(
        "spec.communities: the value of {name:?} is {value:?}: write A:B with numbers up to 65535, or large:A:B:C with numbers up to 4294967295"
    )]
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
    /// The names it gives.
    pub aliases: BTreeSet<Box<str>>,
    /// What is wrong with it, if anything.
    pub problem: Option<CommunityProblem>,
    /// The status it has.
    pub status: api::CommunityStatus,
}

impl From<api::Aliases> for Community {
    fn from(object: api::Aliases) -> Self {
        let (mut aliases, mut problem) = (BTreeSet::new(), None);
        for api::CommunityAlias { name, value } in object.spec.unwrap_or_default().communities {
            let name: Box<str> = name.into();
            let fault = if name.is_empty() {
                Some(CommunityProblem::Nameless)
            } else if !is_community(&value) {
                Some(CommunityProblem::Value { name: name.clone(), value: value.into() })
            } else if !aliases.insert(name.clone()) {
                Some(CommunityProblem::Twice(name))
            } else {
                None
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

/// Whether it is a standard community (RFC 1997) or a large one (RFC 8092).
fn is_community(value: &str) -> bool {
    let parts: Vec<_> = value.split(':').collect();
    match parts.as_slice() {
        [high, low] => [high, low].iter().all(|part| part.parse::<u16>().is_ok()),
        ["large", rest @ ..] => rest.len() == 3 && rest.iter().all(|part| part.parse::<u32>().is_ok()),
        _ => false,
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

//! Least privilege: what `deploy/` grants to FerroLB's accounts, beside what the API server saw them ask. Pure, but for [`run`], which adds up the labs of
//! a test run.

mod granted;
pub mod run;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

pub use granted::granted;

/// What a rule grants to an account, one verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Right {
    pub account: String,
    pub verb: String,
    pub group: String,
    /// With its subresource: `services/status`.
    pub resource: String,
    /// None: in every namespace.
    pub namespace: Option<String>,
    /// None: whatever its name.
    pub name: Option<String>,
}

impl Right {
    fn covers(&self, asked: &Asked) -> bool {
        let named = |own: &Option<String>, its: &str| own.as_deref().is_none_or(|own| own == its);
        let same = |own: &str, its: &str| own == its;
        same(&self.account, &asked.account)
            && same(&self.verb, &asked.verb)
            && same(&self.group, &asked.group)
            && same(&self.resource, &asked.resource)
            && named(&self.namespace, &asked.namespace)
            && named(&self.name, &asked.name)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, verb, group, resource, namespace, name } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{account}: {verb} {resource}{dot}{group}")?;
        name.iter().try_for_each(|name| write!(f, " {name}"))?;
        write!(f, " in {}", namespace.as_deref().unwrap_or("every namespace"))
    }
}

/// What one of the accounts asked of the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    pub account: String,
    pub verb: String,
    pub group: String,
    pub resource: String,
    /// Empty: of no namespace, or of all.
    pub namespace: String,
    /// Empty: not one by its name.
    pub name: String,
    pub allowed: bool,
}

/// What a lab says about rights, or several labs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Rights that a request needed.
    pub used: BTreeSet<Right>,
    /// What was refused and is granted to nobody. What is granted is refused for a moment, too: until the API server has read the roles, and while a
    /// story takes them away.
    pub refused: BTreeSet<Right>,
}

impl Seen {
    /// What these requests say of what is granted.
    pub fn of(asked: &BTreeSet<Asked>, granted: &BTreeSet<Right>) -> Self {
        let mut seen = Self::default();
        for asked in asked {
            match granted.iter().filter(|right| right.covers(asked)).max_by_key(|right| narrowness(right)) {
                Some(right) if asked.allowed => drop(seen.used.insert(right.clone())),
                None if !asked.allowed => drop(seen.refused.insert(wanted(asked))),
                // By a rule of the story's own, or of Kubernetes for every account; or refused for a moment.
                Some(_) | None => {}
            }
        }
        seen
    }

    pub fn extend(&mut self, other: Self) {
        self.used.extend(other.used);
        self.refused.extend(other.refused);
    }

    /// What is wrong with what is granted, a line each: nothing may be granted that nobody used.
    pub fn unused(&self, granted: &BTreeSet<Right>) -> Vec<String> {
        granted.difference(&self.used).map(|right| format!("granted, and used by nobody: {right}")).collect()
    }

    /// What was asked in vain, a line each.
    pub fn in_vain(&self) -> Vec<String> {
        self.refused.iter().map(|right| format!("refused, and granted nowhere: {right}")).collect()
    }
}

/// A request needs the rule that says the most about it: what names its object is not made needless by what names none.
fn narrowness(right: &Right) -> (bool, bool) {
    (right.name.is_some(), right.namespace.is_some())
}

/// The right that a request would have needed.
fn wanted(asked: &Asked) -> Right {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let Asked { account, verb, group, resource, namespace, name, allowed: _ } = asked.clone();
    Right { account, verb, group, resource, namespace: said(&namespace), name: said(&name) }
}

#[cfg(test)]
mod tests;

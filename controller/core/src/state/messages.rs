//! Every message that the controller writes into a condition or an Event. Messages are data: enum
//! variants with fields, and one renderer per kind of object. Pure.
//!
//! A message states the fact, names the object, and gives the command or the change that helps. No
//! message has a trailing period; [`SEPARATOR`] joins several parts. No program parses a message.

pub(super) mod announced;
pub(super) mod assigned;
pub(super) mod bgp;
pub(super) mod cause;
pub(super) mod node;
pub(super) mod peer;
pub(super) mod pool;
pub(super) mod reason;
pub(super) mod valid;
pub(super) mod warning;

use std::fmt::{self, Display};

use ferrolb_proto::api::ConditionStatus;

use super::Names;

/// Separates the parts of a message.
pub(super) const SEPARATOR: &str = "; ";
/// `True`: the object is in use as it is written.
///
/// Action: None.
pub(super) const VALID: &str = "Valid";
/// Kubernetes does not accept a selector: an operator with missing or superfluous values, an
/// unknown operator, or an invalid label. The object is not in use.
///
/// Action: Correct the selector that the message names.
const BAD_SELECTOR: &str = "BadSelector";
/// The object does not match the schema, because the CRD is older or newer than the controller. The
/// object is not in use.
///
/// Action: Apply the CRDs of this version.
const UNREADABLE: &str = "Unreadable";
/// Maximum number of names that a message lists.
const NAMED_MAX: usize = 5;

impl Names {
    /// Returns the `kubectl describe` command for these custom resources of one kind.
    fn describe(&self, resource: &str, objects: &[&str]) -> String {
        let Self { namespace, group } = self;
        format!("`kubectl -n {namespace} describe {resource}.{group} {}`", objects.join(" "))
    }

    /// Returns the `kubectl describe` command for the DaemonSet of the speakers.
    fn describe_speakers(&self) -> String {
        format!("`kubectl -n {} describe daemonset speaker`", self.namespace)
    }
}

/// The content of a condition; `Display` renders the condition's message.
pub(super) trait Message: Display {
    /// Returns the status of the condition.
    fn status(&self) -> ConditionStatus;
    /// Returns the reason of the condition: in each arm a literal or a constant. The doc comment of
    /// the constant, or else of the variants in the pattern, is a row of
    /// `docs/reference/conditions.md` if it has a paragraph that begins with `Action:`.
    fn reason(&self) -> &'static str;
}

/// Joins the items with "and": `a and b`.
pub(super) fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// Lists the first names, then "and others" instead of a count, so that one more name does not
/// change the message.
struct FirstNames<'a, T>(&'a [T]);

impl<T: Display> Display for FirstNames<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().take(NAMED_MAX).enumerate() {
            write!(f, "{}{name}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str(if self.0.len() > NAMED_MAX { " and others" } else { "" })
    }
}

/// Lists the first names, then the number of the remaining ones. The second field is the maximum
/// number of listed names.
struct NamesWithCount<'a, T>(&'a [T], usize);

impl<T: Display> Display for NamesWithCount<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().take(self.1).enumerate() {
            write!(f, "{}{name}", if i > 0 { ", " } else { "" })?;
        }
        match self.0.len().checked_sub(self.1) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// Renders the message about pools that an advertisement names and that do not exist.
struct UnknownPools<'a>(&'a [&'a str]);

impl Display for UnknownPools<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = FirstNames(self.0);
        write!(
            f,
            "spec.ipAddressPools: IPAddressPool {names} does not exist: create it, or remove the \
             name. The other selected pools are announced"
        )
    }
}

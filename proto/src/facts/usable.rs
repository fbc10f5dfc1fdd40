//! Which endpoints of a Service count, read from its annotation. Pure; the verdict and the decoder of Services use it.

use std::collections::BTreeMap;

use super::Endpoint;
use super::request::shown;

/// `ready` or `serving`; known under our own prefix only.
pub const USABLE: &str = "ferrolb.io/usable";

/// Which endpoints count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usable {
    /// Those that are ready, or serving while they terminate, as kube-proxy takes them (KEP-1669). With `publishNotReadyAddresses` the
    /// API server itself says ready of all.
    #[default]
    ReadyOrTerminating,
    /// Those that are ready.
    Ready,
    /// Those that serve, terminating or not, whatever is said of their readiness.
    Serving,
}

/// Why the annotation cannot be understood. The message is for whoever wrote the Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {USABLE}: {0:?} means nothing: write ready or serving, or remove it")]
pub struct UsableProblem(String);

impl Usable {
    /// What the annotation says; where it cannot be understood, the default and why. An empty one is not there.
    pub(super) fn read(annotations: Option<&BTreeMap<String, String>>) -> (Self, Option<Box<UsableProblem>>) {
        match annotations.and_then(|all| all.get(USABLE)).map_or("", |text| text.trim()) {
            "" => (Self::default(), None),
            "ready" => (Self::Ready, None),
            "serving" => (Self::Serving, None),
            text => (Self::default(), Some(Box::new(UsableProblem(shown(text))))),
        }
    }

    /// Whether an endpoint counts.
    #[must_use]
    pub const fn takes(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::ReadyOrTerminating => endpoint.ready || (endpoint.serving && endpoint.terminating),
            Self::Ready => endpoint.ready,
            Self::Serving => endpoint.serving,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood_or_told_with_what_to_write() {
        let read = |text: &str| Usable::read(Some(&[(USABLE.to_owned(), text.to_owned())].into()));
        for (text, expect) in [
            ("ready", Usable::Ready),
            (" serving ", Usable::Serving),
            ("", Usable::ReadyOrTerminating),
            (" ", Usable::ReadyOrTerminating),
        ] {
            assert_eq!(read(text), (expect, None), "{text:?}");
        }
        assert_eq!(Usable::read(None), (Usable::ReadyOrTerminating, None));
        let (usable, problem) = read("Ready");
        let problem = problem.map(|problem| problem.to_string());
        let expect = "annotation ferrolb.io/usable: \"Ready\" means nothing: write ready or serving, or remove it";
        assert_eq!((usable, problem.as_deref()), (Usable::ReadyOrTerminating, Some(expect)));
        let (_, long) = read(&"x".repeat(100_000));
        assert!(long.is_some_and(|problem| problem.to_string().len() < 200));
    }
}

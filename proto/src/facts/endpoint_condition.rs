//! The condition that makes an endpoint of a Service eligible, as an annotation of the Service
//! defines it. Pure; used by the eligibility and the decoder of Services.

use std::collections::BTreeMap;

use super::Endpoint;
use super::address_request::truncated;

/// Annotation of a Service that defines which endpoints are eligible: `ready` or `serving`. FerroLB
/// reads this annotation only with the prefix `ferrolb.io`.
pub const ENDPOINT_CONDITION_ANNOTATION: &str = "ferrolb.io/endpoint-condition";

/// The condition that makes an endpoint eligible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointCondition {
    /// Endpoints that are ready, or that serve while they terminate, as kube-proxy selects them
    /// (KEP-1669). With `publishNotReadyAddresses`, the API server reports all endpoints as ready.
    #[default]
    ReadyOrTerminating,
    /// Endpoints that are ready.
    Ready,
    /// Endpoints whose condition `serving` is true, whether or not they are ready or terminating.
    Serving,
}

/// The reason why the annotation [`ENDPOINT_CONDITION_ANNOTATION`] is invalid. The message is for
/// the author of the Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation {ENDPOINT_CONDITION_ANNOTATION}: {0:?} is not valid: write ready or serving, or remove it"
)]
pub struct EndpointConditionProblem(
    /// The invalid text.
    pub String,
);

impl EndpointCondition {
    /// Decodes the annotation. If the text is invalid, returns the default and the problem. An
    /// empty annotation counts as absent.
    pub(super) fn read(
        annotations: Option<&BTreeMap<String, String>>,
    ) -> (Self, Option<Box<EndpointConditionProblem>>) {
        match annotations
            .and_then(|all| all.get(ENDPOINT_CONDITION_ANNOTATION))
            .map_or("", |text| text.trim())
        {
            "" => (Self::default(), None),
            "ready" => (Self::Ready, None),
            "serving" => (Self::Serving, None),
            text => (Self::default(), Some(Box::new(EndpointConditionProblem(truncated(text))))),
        }
    }

    /// Returns whether an endpoint is eligible under this condition.
    #[must_use]
    pub const fn accepts(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::ReadyOrTerminating => {
                endpoint.ready || (endpoint.serving && endpoint.terminating)
            }
            Self::Ready => endpoint.ready,
            Self::Serving => endpoint.serving,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_decoded_or_has_a_problem_with_a_fix() {
        let read = |text: &str| {
            EndpointCondition::read(Some(
                &[(ENDPOINT_CONDITION_ANNOTATION.to_owned(), text.to_owned())].into(),
            ))
        };
        for (text, expect) in [
            ("ready", EndpointCondition::Ready),
            (" serving ", EndpointCondition::Serving),
            ("", EndpointCondition::ReadyOrTerminating),
            (" ", EndpointCondition::ReadyOrTerminating),
        ] {
            assert_eq!(read(text), (expect, None), "the annotation is {text:?}");
        }
        assert_eq!(EndpointCondition::read(None), (EndpointCondition::ReadyOrTerminating, None));
        let (condition, problem) = read("Ready");
        let problem = problem.map(|problem| problem.to_string());
        let expect = "annotation ferrolb.io/endpoint-condition: \"Ready\" is not valid: write ready or serving, or remove it";
        assert_eq!(
            (condition, problem.as_deref()),
            (EndpointCondition::ReadyOrTerminating, Some(expect))
        );
        let (_, long) = read(&"x".repeat(100_000));
        assert!(long.is_some_and(|problem| problem.to_string().len() < 200));
    }
}

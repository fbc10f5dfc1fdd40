//! The problems of a Service's annotations about endpoints. Pure; used by the conditions of the
//! Service.

use std::fmt;

use super::{EndpointConditionProblem, HealthCheckProblem};

/// The reason why an annotation about endpoints is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointProblem<'a> {
    /// The annotation `ferrolb.io/endpoint-condition` is invalid.
    Condition(&'a EndpointConditionProblem),
    /// The annotation `ferrolb.io/health-check` is invalid.
    HealthCheck(&'a HealthCheckProblem),
}

impl fmt::Display for EndpointProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Condition(problem) => problem.fmt(f),
            Self::HealthCheck(problem) => problem.fmt(f),
        }
    }
}

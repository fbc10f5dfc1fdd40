//! The health check of a Service's endpoints, as the Service's annotation
//! [`HEALTH_CHECK_ANNOTATION`] defines it. Pure; used by the decoder of Services, the speakers'
//! prober, and the controller's conditions.
//!
//! The format is `tcp` or `http`, then an optional port and path, then settings:
//! `http:8080/healthz;interval=2s;timeout=1s;fall=3;rise=2`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::address_request::truncated;
use crate::duration::parse_duration;

/// Annotation of a Service that requests a health check of its endpoints. FerroLB reads this
/// annotation only with the prefix `ferrolb.io`.
pub const HEALTH_CHECK_ANNOTATION: &str = "ferrolb.io/health-check";

/// Valid intervals between two checks of an endpoint.
pub const HEALTH_INTERVAL_RANGE: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);
/// Valid timeouts of a check.
const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
/// Valid values of `fall` and `rise`, which are numbers of consecutive results.
const COUNT_RANGE: RangeInclusive<u32> = 1..=100;
/// The longest path of an HTTP check, in bytes.
const PATH_MAX: usize = 1024;
/// The bytes that may appear unescaped in the path and query of a URL, besides letters and digits
/// (RFC 3986 section 3.3 and 3.4). `;` is missing, because it ends the path in the annotation.
const PATH_PUNCTUATION: &[u8] = b"-._~%!$&'()*+,=:@/?";

/// The health check of a Service. For settings that are `None`, the speaker's flags supply the
/// values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The kind of the check: TCP or HTTP.
    pub kind: CheckKind,
    /// The port to which the check connects.
    pub port: CheckPort,
    /// The time between two checks of an endpoint.
    pub interval: Option<Duration>,
    /// The time within which a reply must arrive.
    pub timeout: Option<Duration>,
    /// The number of consecutive failures after which a passing endpoint fails.
    pub fall: Option<u32>,
    /// The number of consecutive successes after which a failing endpoint passes.
    pub rise: Option<u32>,
}

/// The kind of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Opens a TCP connection.
    Tcp,
    /// Sends a GET by HTTP/1.
    Http {
        /// Path and query; begins with `/`.
        path: Arc<str>,
    },
}

/// The port of a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckPort {
    /// The same port on every endpoint.
    Number(u16),
    /// The Service's first TCP port, by its name. Each EndpointSlice has its own number for the
    /// name, so the number may differ between endpoints.
    Named(Box<str>),
}

/// The reason why the annotation [`HEALTH_CHECK_ANNOTATION`] is invalid. The messages are for the
/// author of the Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthCheckProblem {
    /// The kind is neither `tcp` nor `http`.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: {0:?} is not a type of check: write tcp or http"
    )]
    Kind(String),
    /// The port is not a number from 1 to 65535.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: {0:?} is not a port: write a number from 1 to 65535"
    )]
    Port(String),
    /// No port is set, and the Service has no TCP port.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: the Service has no TCP port: write a port, as in tcp:8080"
    )]
    NoPort,
    /// A TCP check has a path, which only HTTP checks may have.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: a tcp check has no path: write http, or remove {0:?}"
    )]
    TcpPath(String),
    /// The path is longer than `PATH_MAX`.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: the path is longer than {PATH_MAX} bytes: shorten it"
    )]
    LongPath,
    /// The path contains a character that may not appear unescaped in a URL.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: {0:?} is not allowed in the path: write it as % and two hexadecimal digits"
    )]
    Path(char),
    /// A setting is unknown.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: {0:?} is not a setting: write interval=, timeout=, fall= or rise= and its value"
    )]
    Setting(String),
    /// A setting occurs twice.
    #[error("annotation {HEALTH_CHECK_ANNOTATION}: {0} is set twice: remove one")]
    DuplicateSetting(&'static str),
    /// The value of a setting is not a duration, or is out of its range.
    #[error(
        "annotation {HEALTH_CHECK_ANNOTATION}: {name}={text:?}: write a time from {min:?} to {max:?}, such as 1s"
    )]
    Time {
        /// The name of the setting.
        name: &'static str,
        /// The invalid value.
        text: String,
        /// The shortest valid time.
        min: Duration,
        /// The longest valid time.
        max: Duration,
    },
    /// The value of a setting is not a number, or is out of its range.
    #[error("annotation {HEALTH_CHECK_ANNOTATION}: {name}={text:?}: write a number from {} to {}", COUNT_RANGE.start(), COUNT_RANGE.end())]
    Count {
        /// The name of the setting.
        name: &'static str,
        /// The invalid value.
        text: String,
    },
}

impl HealthCheck {
    /// Decodes the annotation of a Service. `first_tcp_port` is the name of the Service's first TCP
    /// port, empty if the port has no name.
    ///
    /// # Errors
    /// The first problem.
    pub fn read(text: &str, first_tcp_port: Option<&str>) -> Result<Self, HealthCheckProblem> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, port) = kind_and_port(parts.next().unwrap_or_default())?;
        let port = match (port, first_tcp_port) {
            (Some(number), _) => CheckPort::Number(number),
            (None, Some(name)) => CheckPort::Named(name.into()),
            (None, None) => return Err(HealthCheckProblem::NoPort),
        };
        let mut check = Self { kind, port, interval: None, timeout: None, fall: None, rise: None };
        for part in parts {
            let unknown_setting = || HealthCheckProblem::Setting(truncated(part));
            let (name, value) = part.split_once('=').ok_or_else(unknown_setting)?;
            let value = value.trim();
            match name.trim() {
                "interval" => set_once(
                    "interval",
                    &mut check.interval,
                    time("interval", value, &HEALTH_INTERVAL_RANGE)?,
                )?,
                "timeout" => set_once(
                    "timeout",
                    &mut check.timeout,
                    time("timeout", value, &TIMEOUT_RANGE)?,
                )?,
                "fall" => set_once("fall", &mut check.fall, count("fall", value)?)?,
                "rise" => set_once("rise", &mut check.rise, count("rise", value)?)?,
                _ => return Err(unknown_setting()),
            }
        }
        Ok(check)
    }
}

/// Decodes the kind, port and path of a check: `tcp`, `tcp:8080`, `http`, `http:8080`, `http/path`,
/// `http:8080/path`.
fn kind_and_port(text: &str) -> Result<(CheckKind, Option<u16>), HealthCheckProblem> {
    let (head, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (kind, port) =
        head.split_once(':').map_or((head, None), |(kind, port)| (kind, Some(port.trim())));
    let kind = match (kind.trim(), path) {
        ("tcp", "") => CheckKind::Tcp,
        ("tcp", path) => return Err(HealthCheckProblem::TcpPath(truncated(path))),
        ("http", "") => CheckKind::Http { path: "/".into() },
        ("http", path) => CheckKind::Http { path: valid_path(path)? },
        (other, _) => return Err(HealthCheckProblem::Kind(truncated(other))),
    };
    Ok((kind, port.map(port_number).transpose()?))
}

fn valid_path(path: &str) -> Result<Arc<str>, HealthCheckProblem> {
    if path.len() > PATH_MAX {
        return Err(HealthCheckProblem::LongPath);
    }
    let is_allowed = |c: &char| {
        u8::try_from(*c)
            .is_ok_and(|byte| byte.is_ascii_alphanumeric() || PATH_PUNCTUATION.contains(&byte))
    };
    match path.chars().find(|c| !is_allowed(c)) {
        Some(wrong) => Err(HealthCheckProblem::Path(wrong)),
        None => Ok(path.into()),
    }
}

fn port_number(text: &str) -> Result<u16, HealthCheckProblem> {
    number(text)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| HealthCheckProblem::Port(truncated(text)))
}

fn time(
    name: &'static str,
    text: &str,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, HealthCheckProblem> {
    let problem = || HealthCheckProblem::Time {
        name,
        text: truncated(text),
        min: *range.start(),
        max: *range.end(),
    };
    parse_duration(text).ok().filter(|time| range.contains(time)).ok_or_else(problem)
}

fn count(name: &'static str, text: &str) -> Result<u32, HealthCheckProblem> {
    number(text)
        .filter(|count| COUNT_RANGE.contains(count))
        .ok_or_else(|| HealthCheckProblem::Count { name, text: truncated(text) })
}

/// Decodes a number without a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn set_once<T>(
    name: &'static str,
    setting: &mut Option<T>,
    value: T,
) -> Result<(), HealthCheckProblem> {
    if setting.replace(value).is_some() {
        Err(HealthCheckProblem::DuplicateSetting(name))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;

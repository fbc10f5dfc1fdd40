//! How the endpoints of a Service are asked whether they work: the value of its annotation [`HEALTH_CHECK`]. Pure; the decoder of
//! Services reads it, speakers ask by it, the controller says what is wrong with it.
//!
//! `tcp` or `http`, where to, and settings: `http:8080/healthz;interval=2s;timeout=1s;fall=3;rise=2`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::request::shown;
use crate::duration::parse_duration;

/// The annotation on Services; known under our own prefix only.
pub const HEALTH_CHECK: &str = "ferrolb.io/health-check";

/// How often an endpoint may be asked.
pub const HEALTH_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// How long an answer may be waited for.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30);
/// How many answers in a row may be asked for.
const COUNT: RangeInclusive<u32> = 1..=100;
/// The longest path, in bytes.
const PATH_MAX: usize = 1024;
/// What stands for itself in the path and query of a URL beside letters and digits (RFC 3986 section 3.3 and 3.4); a `;` ends the path here.
const PATH_MARKS: &[u8] = b"-._~%!$&'()*+,=:@/?";

/// How endpoints are checked. What is not written comes from the speaker's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// Which port.
    pub port: CheckPort,
    /// How often.
    pub interval: Option<Duration>,
    /// How long an answer is waited for.
    pub timeout: Option<Duration>,
    /// So many failures in a row, and a passing endpoint fails.
    pub fall: Option<u32>,
    /// So many successes in a row, and a failing endpoint passes.
    pub rise: Option<u32>,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// To take a connection.
    Tcp,
    /// A GET by HTTP/1.
    Http {
        /// What for: path and query; begins with `/`.
        path: Arc<str>,
    },
}

/// The port that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckPort {
    /// This one on every endpoint.
    Number(u16),
    /// The TCP port of this name in each EndpointSlice: the Service's first. Endpoints may have different ones.
    Named(Box<str>),
}

/// Why a check cannot be understood. The messages are for whoever wrote the Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthCheckProblem {
    /// Neither of the two kinds.
    #[error("annotation {HEALTH_CHECK}: {0:?} is no kind of check: write tcp or http")]
    Kind(String),
    /// No number of a port.
    #[error("annotation {HEALTH_CHECK}: {0:?} is no port: write a number from 1 to 65535")]
    Port(String),
    /// No port is written, and the Service has none.
    #[error("annotation {HEALTH_CHECK}: the Service has no TCP port: write a port, as in tcp:8080")]
    NoPort,
    /// Only HTTP has paths.
    #[error("annotation {HEALTH_CHECK}: a tcp check has no path: write http, or leave {0:?} out")]
    TcpPath(String),
    /// More than a request is to carry.
    #[error("annotation {HEALTH_CHECK}: the path is longer than {PATH_MAX} bytes: shorten it")]
    LongPath,
    /// Not of a URL.
    #[error("annotation {HEALTH_CHECK}: {0:?} cannot stand in the path: write it as % and two hexadecimal digits")]
    Path(char),
    /// No such setting.
    #[error("annotation {HEALTH_CHECK}: {0:?} is no setting: write interval=, timeout=, fall= or rise= and its value")]
    Setting(String),
    /// Which of the two?
    #[error("annotation {HEALTH_CHECK}: {0} is set twice: leave one out")]
    Twice(&'static str),
    /// No time, or too short or too long.
    #[error("annotation {HEALTH_CHECK}: {name}={text:?}: write a time from {min:?} to {max:?}, such as 1s")]
    Time {
        /// The setting.
        name: &'static str,
        /// What was written.
        text: String,
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// No number, or too small or too large.
    #[error("annotation {HEALTH_CHECK}: {name}={text:?}: write a number from {} to {}", COUNT.start(), COUNT.end())]
    Count {
        /// The setting.
        name: &'static str,
        /// What was written.
        text: String,
    },
}

impl HealthCheck {
    /// Reads the annotation of a Service whose first TCP port has this name; an unnamed one has an empty name.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(text: &str, first_tcp_port: Option<&str>) -> Result<Self, HealthCheckProblem> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, port) = endpoint(parts.next().unwrap_or_default())?;
        let port = match (port, first_tcp_port) {
            (Some(number), _) => CheckPort::Number(number),
            (None, Some(name)) => CheckPort::Named(name.into()),
            (None, None) => return Err(HealthCheckProblem::NoPort),
        };
        let mut check = Self { kind, port, interval: None, timeout: None, fall: None, rise: None };
        for part in parts {
            let no_setting = || HealthCheckProblem::Setting(shown(part));
            let (name, value) = part.split_once('=').ok_or_else(no_setting)?;
            let value = value.trim();
            match name.trim() {
                "interval" => once("interval", &mut check.interval, time("interval", value, &HEALTH_INTERVAL)?)?,
                "timeout" => once("timeout", &mut check.timeout, time("timeout", value, &TIMEOUT)?)?,
                "fall" => once("fall", &mut check.fall, count("fall", value)?)?,
                "rise" => once("rise", &mut check.rise, count("rise", value)?)?,
                _ => return Err(no_setting()),
            }
        }
        Ok(check)
    }
}

/// What is asked and where: `tcp`, `tcp:8080`, `http`, `http:8080`, `http/path`, `http:8080/path`.
fn endpoint(text: &str) -> Result<(CheckKind, Option<u16>), HealthCheckProblem> {
    let (head, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (kind, port) = head.split_once(':').map_or((head, None), |(kind, port)| (kind, Some(port.trim())));
    let kind = match (kind.trim(), path) {
        ("tcp", "") => CheckKind::Tcp,
        ("tcp", path) => return Err(HealthCheckProblem::TcpPath(shown(path))),
        ("http", "") => CheckKind::Http { path: "/".into() },
        ("http", path) => CheckKind::Http { path: checked_path(path)? },
        (other, _) => return Err(HealthCheckProblem::Kind(shown(other))),
    };
    Ok((kind, port.map(port_number).transpose()?))
}

fn checked_path(path: &str) -> Result<Arc<str>, HealthCheckProblem> {
    if path.len() > PATH_MAX {
        return Err(HealthCheckProblem::LongPath);
    }
    let stands =
        |c: &char| u8::try_from(*c).is_ok_and(|byte| byte.is_ascii_alphanumeric() || PATH_MARKS.contains(&byte));
    match path.chars().find(|c| !stands(c)) {
        Some(wrong) => Err(HealthCheckProblem::Path(wrong)),
        None => Ok(path.into()),
    }
}

fn port_number(text: &str) -> Result<u16, HealthCheckProblem> {
    number(text)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port > 0)
        .ok_or_else(|| HealthCheckProblem::Port(shown(text)))
}

fn time(name: &'static str, text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, HealthCheckProblem> {
    let wrong = || HealthCheckProblem::Time { name, text: shown(text), min: *range.start(), max: *range.end() };
    parse_duration(text).ok().filter(|time| range.contains(time)).ok_or_else(wrong)
}

fn count(name: &'static str, text: &str) -> Result<u32, HealthCheckProblem> {
    number(text)
        .filter(|count| COUNT.contains(count))
        .ok_or_else(|| HealthCheckProblem::Count { name, text: shown(text) })
}

/// A number without a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn once<T>(name: &'static str, place: &mut Option<T>, value: T) -> Result<(), HealthCheckProblem> {
    if place.replace(value).is_some() { Err(HealthCheckProblem::Twice(name)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;

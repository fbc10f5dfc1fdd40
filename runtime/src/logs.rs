//! Structured logs on stderr. `main` sets them up once, before any other code can log.
//!
//! Levels: ERROR for failures; WARN for conditions that an operator should look at; INFO for events
//! that an operator wants to read a month later; DEBUG for each decision and each retry; TRACE for
//! each packet. Without an API server, the kube crates log an error at each retry. Their logs are
//! disabled here, because [`crate::api_health`] and [`crate::watch`] log each such error once.

#[cfg(test)]
pub(crate) mod captured;

use std::io::{IsTerminal, stderr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::flags::{LogFormat, LogLevel};

/// Libraries whose INFO and DEBUG lines do not help an operator.
const WARN_ONLY_LIBRARIES: [&str; 6] =
    ["hyper", "hyper_util", "tower", "rustls", "netlink_proto", "kube_client::client::tls"];
/// Libraries that log at each retry an error that FerroLB logs once.
const SILENT_LIBRARIES: [&str; 1] = ["kube_client"];

/// Starts logging for the whole process.
///
/// # Errors
/// Logging was started before.
pub fn init(
    format: LogFormat,
    level: LogLevel,
) -> Result<(), tracing_subscriber::util::TryInitError> {
    let layer = tracing_subscriber::fmt::layer().with_writer(stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets(level))).try_init()
}

fn targets(level: LogLevel) -> Targets {
    let own_level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(own_level)
        .with_targets(WARN_ONLY_LIBRARIES.map(|target| (target, own_level.min(LevelFilter::WARN))))
        .with_targets(SILENT_LIBRARIES.map(|target| (target, LevelFilter::OFF)))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_log_less_than_ferrolb() {
        let cases = [
            (LogLevel::Info, "ferrolb_speaker::arp", Level::INFO, true),
            (LogLevel::Info, "ferrolb_speaker::arp", Level::DEBUG, false),
            (LogLevel::Trace, "ferrolb_speaker::arp", Level::TRACE, true),
            (LogLevel::Trace, "hyper::proto", Level::INFO, false),
            (LogLevel::Info, "hyper::proto", Level::WARN, true),
            (LogLevel::Error, "hyper::proto", Level::WARN, false),
            (LogLevel::Trace, "kube_client::client::builder", Level::ERROR, false),
            (LogLevel::Info, "kube_client::client::tls", Level::WARN, true),
        ];
        for (level, target, event_level, expect) in cases {
            assert_eq!(
                targets(level).would_enable(target, &event_level),
                expect,
                "the log level is {level:?}, and an event of {target} has {event_level}"
            );
        }
    }
}

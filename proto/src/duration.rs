//! Text formats of durations: a whole number and a unit in flags and annotations, such as `50ms`,
//! `30s` or `1m`, and Go's notation in custom resources, such as `1h30m`. Pure functions.

use std::time::Duration;

use kube::core::Duration as GoDuration;

/// Maximum number of consecutive digits in a duration in Go's notation. Longer numbers are no
/// meaningful times.
const GO_DIGITS_MAX: usize = 9;

/// Reason why a duration is invalid; the message states the accepted format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is not a whole number followed by a known unit.
    #[error("a duration is a whole number and a unit (ms, s or m), such as 50ms, 30s or 1m")]
    Format,
    /// The duration does not fit in a `u64` of milliseconds.
    #[error("this duration is too long")]
    TooLong,
    /// The duration is zero, which is invalid for an interval or a timeout.
    #[error("this duration must be longer than zero, such as 50ms, 30s or 1m")]
    Zero,
}

/// Parses `50ms`, `30s` or `1m`; zero (`0s`) is valid. Usable as a `value_parser` of clap.
///
/// # Errors
/// [`DurationError::Format`] or [`DurationError::TooLong`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(DurationError::Format),
    };
    if number.is_empty() {
        return Err(DurationError::Format);
    }
    let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or(DurationError::TooLong)
}

/// Parses an interval or a timeout like [`parse_duration`], but rejects zero. Usable as a
/// `value_parser` of clap.
///
/// # Errors
/// Any [`DurationError`].
pub fn parse_interval(text: &str) -> Result<Duration, DurationError> {
    match parse_duration(text)? {
        Duration::ZERO => Err(DurationError::Zero),
        interval => Ok(interval),
    }
}

/// Parses a duration in Go's notation, as in MetalLB's custom resources, and returns it in whole
/// seconds, rounded as in MetalLB. Returns `None` for texts with signs or long numbers, because
/// kube's parser accepts any number and panics for values that Rust's `Duration` cannot hold.
#[must_use]
pub fn parse_go_seconds(text: &str) -> Option<u64> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let longest = text.split(|c: char| !c.is_ascii_digit()).map(str::len).max();
    if text.is_empty() || !text.chars().all(is_plain) || longest > Some(GO_DIGITS_MAX) {
        return None;
    }
    let duration = Duration::from(text.parse::<GoDuration>().ok()?);
    (duration + Duration::from_millis(500)).as_secs().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        let cases = [
            ("50ms", Ok(Duration::from_millis(50))),
            ("30s", Ok(Duration::from_secs(30))),
            ("1m", Ok(Duration::from_secs(60))),
            ("0s", Ok(Duration::ZERO)),
            ("007s", Ok(Duration::from_secs(7))),
            ("", Err(DurationError::Format)),
            ("30", Err(DurationError::Format)),
            ("s", Err(DurationError::Format)),
            ("-1s", Err(DurationError::Format)),
            ("+1s", Err(DurationError::Format)),
            ("1.5s", Err(DurationError::Format)),
            ("1 s", Err(DurationError::Format)),
            (" 1s", Err(DurationError::Format)),
            ("1S", Err(DurationError::Format)),
            ("1h", Err(DurationError::Format)),
            ("1m30s", Err(DurationError::Format)),
            ("٣s", Err(DurationError::Format)),
            ("18446744073709551616s", Err(DurationError::TooLong)),
            ("18446744073709551615m", Err(DurationError::TooLong)),
        ];
        for (text, expect) in cases {
            assert_eq!(parse_duration(text), expect, "the text is {text:?}");
        }
    }

    #[test]
    fn an_interval_is_a_duration_above_zero() {
        assert_eq!(parse_interval("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_interval("0ms"), Err(DurationError::Zero));
        assert_eq!(parse_interval("soon"), Err(DurationError::Format));
    }

    #[test]
    fn an_invalid_duration_in_go_notation_causes_no_panic() {
        for text in [
            "",
            "s",
            "-5s",
            "1s-3s",
            "1e30s",
            "99999999999999999999h",
            "0.99999999999999999999s",
            "1.2.3s",
            "5",
            "+",
            "inf",
            "٣s",
            "1h٣",
        ] {
            assert_eq!(parse_go_seconds(text), None, "{text:?} is no valid duration");
        }
        assert_eq!(parse_go_seconds("999999999h"), Some(999_999_999 * 3600));
    }
}

//! How durations are written in flags and annotations: a whole number and its unit, `50ms`, `30s`, `1m`. Pure.

use std::time::Duration;

/// Why a duration was not understood; says what is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not a whole number followed by a unit we know.
    #[error("a duration is a whole number and a unit (ms, s or m), such as 50ms, 30s or 1m")]
    Shape,
    /// More than a `u64` of milliseconds.
    #[error("this duration is too long")]
    TooLong,
    /// Zero where something has to happen again and again.
    #[error("this duration must be longer than zero, such as 50ms, 30s or 1m")]
    Zero,
}

/// Reads `50ms`, `30s` or `1m`; zero (`0s`) is a duration too. A `value_parser` for clap.
///
/// # Errors
/// [`DurationError::Shape`] or [`DurationError::TooLong`].
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(DurationError::Shape),
    };
    if number.is_empty() {
        return Err(DurationError::Shape);
    }
    let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    number.checked_mul(millis_per_unit).map(Duration::from_millis).ok_or(DurationError::TooLong)
}

/// As [`parse_duration`], for what repeats or expires: zero is refused. A `value_parser` for clap.
///
/// # Errors
/// Any [`DurationError`].
pub fn parse_interval(text: &str) -> Result<Duration, DurationError> {
    match parse_duration(text)? {
        Duration::ZERO => Err(DurationError::Zero),
        interval => Ok(interval),
    }
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
            ("", Err(DurationError::Shape)),
            ("30", Err(DurationError::Shape)),
            ("s", Err(DurationError::Shape)),
            ("-1s", Err(DurationError::Shape)),
            ("+1s", Err(DurationError::Shape)),
            ("1.5s", Err(DurationError::Shape)),
            ("1 s", Err(DurationError::Shape)),
            (" 1s", Err(DurationError::Shape)),
            ("1S", Err(DurationError::Shape)),
            ("1h", Err(DurationError::Shape)),
            ("1m30s", Err(DurationError::Shape)),
            ("٣s", Err(DurationError::Shape)),
            ("18446744073709551616s", Err(DurationError::TooLong)),
            ("18446744073709551615m", Err(DurationError::TooLong)),
        ];
        for (text, expect) in cases {
            assert_eq!(parse_duration(text), expect, "{text:?}");
        }
    }

    #[test]
    fn an_interval_is_a_duration_above_zero() {
        assert_eq!(parse_interval("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse_interval("0ms"), Err(DurationError::Zero));
        assert_eq!(parse_interval("soon"), Err(DurationError::Shape));
    }
}

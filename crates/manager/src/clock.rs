//! Wall-clock time as the store keeps it: milliseconds since 1970 in UTC.

use jiff::Timestamp;

/// Now.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// The RFC 3339 form with milliseconds and `Z`, as every reply has it. A time outside year 9999 becomes the epoch.
pub fn rfc3339(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// Reads an RFC 3339 time.
pub fn parse(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_z() {
        assert_eq!(rfc3339(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(rfc3339(1_700_000_000_042), "2023-11-14T22:13:20.042Z");
        assert_eq!(parse("2023-11-14T23:13:20.042+01:00"), Some(1_700_000_000_042));
        assert_eq!(parse("yesterday"), None);
    }
}

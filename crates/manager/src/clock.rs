//! Wall-clock time as the store keeps it: milliseconds since 1970 in UTC.

use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};

/// Where the clock is set to, beside the host's. Tests set the server's clock back with `RDS_FAULT=clock:SECONDS`.
static SHIFT: LazyLock<SignedDuration> = LazyLock::new(|| {
    let fault = std::env::var("RDS_FAULT").unwrap_or_default();
    let seconds = fault.strip_prefix("clock:").and_then(|seconds| seconds.parse().ok());
    SignedDuration::from_secs(seconds.unwrap_or(0))
});

/// The one wall clock of the server, and of its guests.
pub fn now() -> Timestamp {
    Timestamp::now().saturating_add(*SHIFT).unwrap_or_else(|_| Timestamp::now())
}

/// Now.
pub fn now_ms() -> i64 {
    now().as_millisecond()
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

//! Wall-clock time as the store keeps it: milliseconds since 1970 in UTC.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};

/// Where the clock is set to, beside the host's: tests set the server's clock, with `RDS_FAULT`.
static SHIFT: LazyLock<Shift> = LazyLock::new(|| Shift::parse(&std::env::var("RDS_FAULT").unwrap_or_default()));

/// By how much a clock is off.
enum Shift {
    /// `clock:SECONDS`
    Fixed(SignedDuration),
    /// `clock-in:FILE`, in which the seconds are: it can be set while the server runs.
    In(PathBuf),
}

impl Shift {
    fn parse(fault: &str) -> Self {
        match fault.strip_prefix("clock-in:") {
            Some(file) => Self::In(file.into()),
            None => Self::Fixed(fault.strip_prefix("clock:").and_then(seconds).unwrap_or_default()),
        }
    }

    fn now(&self) -> SignedDuration {
        match self {
            Self::Fixed(shift) => *shift,
            Self::In(file) => fs::read_to_string(file).ok().and_then(|text| seconds(text.trim())).unwrap_or_default(),
        }
    }
}

fn seconds(text: &str) -> Option<SignedDuration> {
    text.parse().ok().map(SignedDuration::from_secs)
}

/// The one wall clock of the server, and of its guests. It may be set at any time, so it measures nothing: how long something
/// takes, or is still to take, is for `Instant`.
pub fn now() -> Timestamp {
    Timestamp::now().saturating_add(SHIFT.now()).unwrap_or_else(|_| Timestamp::now())
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

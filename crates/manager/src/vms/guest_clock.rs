//! Setting a guest's wall clock right, however long messages to it take.

use std::time::{Duration, Instant};

use rds_vmm::guest::{GuestClient, GuestError};
use tokio::time::timeout;

/// What a guest's clock may be off by without more being done. Clients are promised 50 ms.
const TOLERANCE_US: i64 = 20_000;

/// Readings of which the quickest counts.
const READINGS: u32 = 10;

/// How long it may take to set a clock right. Nobody can use the VM meanwhile, nor delete it while it is resumed.
const LIMIT: Duration = Duration::from_secs(10);

/// After so long the best reading there is has to do.
const READING: Duration = Duration::from_secs(2);

/// One reading: how far the guest's clock is ahead, to within half of what the reading took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    ahead_us: i64,
    took_us: i64,
}

impl Reading {
    /// Of a guest's clock that was asked for and answered at these times of the host's, so much later. The host's may have been
    /// set meanwhile: such a reading is as bad as one that took that long.
    fn new(asked: i64, guest: i64, answered: i64, took: Duration) -> Self {
        let took_us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        let off_us = (answered - asked - took_us).abs();
        Self { ahead_us: guest - (asked + took_us / 2), took_us: took_us.saturating_add(off_us) }
    }
}

/// Whether a clock that was set by an order and read in its answer can be off by too much, in either direction: the host's
/// may have been set meanwhile.
pub(super) fn is_doubtful(clock_us: u64) -> bool {
    now().abs_diff(i64::try_from(clock_us).unwrap_or(i64::MAX)) > TOLERANCE_US.unsigned_abs()
}

/// Measures the clock and sets it right. It is read again while the guest is slow to answer, for some seconds at most.
pub(super) async fn correct(guest: &GuestClient) -> Result<(), GuestError> {
    timeout(LIMIT, measure_and_set(guest)).await.unwrap_or(Err(GuestError::Timeout))
}

async fn measure_and_set(guest: &GuestClient) -> Result<(), GuestError> {
    let begun = Instant::now();
    let mut best = read(guest).await?;
    for _ in 1..READINGS {
        if best.took_us < TOLERANCE_US || begun.elapsed() > READING {
            break;
        }
        let next = read(guest).await?;
        best = if next.took_us < best.took_us { next } else { best };
    }
    if best.ahead_us.abs() > TOLERANCE_US / 4 {
        guest.adjust_clock(-best.ahead_us, LIMIT).await?;
    }
    Ok(())
}

async fn read(guest: &GuestClient) -> Result<Reading, GuestError> {
    let (asked, begun) = (now(), Instant::now());
    let clock = guest.adjust_clock(0, LIMIT).await?;
    Ok(Reading::new(asked, i64::try_from(clock.clock_us).unwrap_or(i64::MAX), now(), begun.elapsed()))
}

/// Microseconds since 1970.
fn now() -> i64 {
    crate::clock::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_takes_both_ways_for_the_same() {
        let reading = |guest, answered, took| Reading::new(1000, guest, answered, Duration::from_micros(took));
        assert_eq!(reading(1100, 1200, 200), Reading { ahead_us: 0, took_us: 200 });
        assert_eq!(reading(50, 1100, 100), Reading { ahead_us: -1000, took_us: 100 });
        assert!(is_doubtful(0) && is_doubtful(u64::MAX));
        assert!(!is_doubtful(u64::try_from(now()).unwrap()));
    }

    #[test]
    fn a_clock_that_is_set_meanwhile_makes_a_bad_reading() {
        const HOUR: i64 = 3_600_000_000;
        for step in [-HOUR, HOUR] {
            let reading = Reading::new(HOUR, HOUR + 100, HOUR + 200 + step, Duration::from_micros(200));
            assert_eq!(reading, Reading { ahead_us: 0, took_us: HOUR + 200 });
        }
    }
}

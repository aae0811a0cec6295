//! The rate of the host's time stamp counter.
//!
//! An emulated guest reads the same counter. Its kernel would find out the rate with a timer that is emulated as well,
//! and on a busy host fails: measured with five processes on two cores, three boots of eight hung for ever. So it is told.

use std::arch::x86_64::_rdtsc;
use std::time::{Duration, Instant};

/// How long is measured. With [`sample`]'s error of some 50 ns on both ends this is exact to five parts in a million.
const INTERVAL: Duration = Duration::from_millis(20);

/// Readings of which the one that was disturbed least counts.
const READINGS: usize = 50;

/// The rate in kHz.
pub(super) async fn tsc_khz() -> u64 {
    let (ticks, time) = sample();
    tokio::time::sleep(INTERVAL).await;
    let (later_ticks, later_time) = sample();
    khz(later_ticks.wrapping_sub(ticks), later_time.duration_since(time))
}

fn khz(ticks: u64, time: Duration) -> u64 {
    let nanoseconds = time.as_nanos().max(1);
    u64::try_from((u128::from(ticks) * 1_000_000 + nanoseconds / 2) / nanoseconds).unwrap_or(u64::MAX)
}

/// The counter and the time at one moment.
fn sample() -> (u64, Instant) {
    let reading = || {
        let (before, now, after) = (counter(), Instant::now(), counter());
        (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), now)
    };
    let best = (0..READINGS).map(|_| reading()).min_by_key(|(took, ..)| *took);
    let (_, ticks, time) = best.expect("there are readings");
    (ticks, time)
}

fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction; it only reads a counter.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_rounded() {
        assert_eq!(khz(50_000_000, Duration::from_millis(20)), 2_500_000);
        assert_eq!(khz(51_921_931, Duration::from_millis(20)), 2_596_097);
        assert_eq!(khz(0, Duration::ZERO), 0);
    }

    #[tokio::test]
    async fn two_measurements_agree() {
        let (first, second) = (tsc_khz().await, tsc_khz().await);
        assert!(first > 100_000 && first.abs_diff(second) < first / 1000, "{first} {second}");
    }
}

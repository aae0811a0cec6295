//! The rate of the host's time stamp counter.
//!
//! An emulated guest reads the same counter. Its kernel would find out the rate with a timer that is emulated as well,
//! and on a busy host fails: measured with five processes on two cores, three boots of eight hung for ever. So it is told.

use std::arch::x86_64::_rdtsc;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long is measured. With [`sample`]'s error of some 50 ns on both ends this is exact to five parts in a million.
const INTERVAL: Duration = Duration::from_millis(20);

/// Measurements of one rate differ by less than one part in this many: ten times as much as is usual.
const SAME: u64 = 20_000;

/// Readings of which the one that was disturbed least counts.
const READINGS: usize = 50;

/// The rate in kHz: as an earlier program measured it on this host, if `kept` says so and it is still the same. What saved
/// machines were told has to stay what others are told.
pub(super) async fn tsc_khz(kept: Option<&Path>) -> u64 {
    let measured = measure().await;
    let Some(path) = kept else { return measured };
    let earlier = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    if let Some(earlier) = earlier.filter(|earlier| is_same(measured, *earlier)) {
        return earlier;
    }
    if let Err(error) = fs::write(path, measured.to_string()) {
        tracing::warn!(%error, path = %path.display(), "cannot keep the rate of the time stamp counter");
    }
    measured
}

fn is_same(measured: u64, earlier: u64) -> bool {
    measured.abs_diff(earlier) < measured / SAME
}

async fn measure() -> u64 {
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
        let (first, second) = (measure().await, measure().await);
        assert!(first > 100_000 && first.abs_diff(second) < first / 1000, "{first} {second}");
    }

    #[tokio::test]
    async fn a_rate_stays_until_it_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rate");
        let first = tsc_khz(Some(&path)).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), first.to_string());
        let near = first + first / SAME / 2;
        assert!(is_same(first, near) && !is_same(first, first + first / 1000));
        for other in [(first * 2).to_string(), "?".into(), String::new()] {
            fs::write(&path, other).unwrap();
            let again = tsc_khz(Some(&path)).await;
            assert!(again.abs_diff(first) < first / 1000);
            assert_eq!(fs::read_to_string(&path).unwrap(), again.to_string());
        }
    }
}

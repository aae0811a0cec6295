//! Whether the kernel knows how fast its timer counts.
//!
//! An emulated machine's kernel finds that out for itself: it lets the timer count for a tenth of a second by its clock. On a
//! busy host the processor stands still in the meantime, and the kernel believes in a timer that is twice as fast, or so slow
//! that it does without; then all that waits wakes late, or never, as long as the machine lives and in every copy of it.

use std::fs;
use std::io;

use rds_protocol::{MISTIMED, TIMER_HZ};

use crate::error::{SystemError, While};

/// The kernel may believe in so many percent of the true rate. What it takes for too fast wakes everybody late; what it takes
/// for too slow wakes it early, and it waits again, which costs no more than that.
const BELIEVABLE: std::ops::RangeInclusive<u64> = 25..=110;

/// What there is to know of it, in /proc/timer_list.
#[derive(Debug, PartialEq, Eq)]
enum Timer {
    /// The one that has to be measured counts so often in a second.
    Local(u64),
    /// There is none.
    None,
    /// It is another, or the list has a form that nobody knows.
    Other,
}

/// Refuses a machine whose command line tells the rate, and whose kernel believes in another.
pub(crate) fn check() -> Result<(), SystemError> {
    let line = fs::read_to_string("/proc/cmdline").while_("read the kernel's command line")?;
    let Some(hz) = told(&line) else { return Ok(()) };
    let list = fs::read_to_string("/proc/timer_list").unwrap_or_default();
    match timer(&list) {
        Timer::Other => Ok(()),
        Timer::Local(believed) if BELIEVABLE.contains(&(believed.saturating_mul(100) / hz)) => Ok(()),
        wrong => Err(io::Error::other(format!("{MISTIMED} ({wrong:?} for {hz} Hz)"))).while_("use the timer"),
    }
}

fn told(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    words.find_map(|word| word.strip_prefix(TIMER_HZ)?.strip_prefix('=')?.parse().ok()).filter(|hz| *hz > 0)
}

/// The timer of the first processor.
fn timer(list: &str) -> Timer {
    let mut lines = list.lines().skip_while(|line| !line.starts_with("Per CPU device")).map(str::trim);
    let mut value = |key| lines.find_map(|line| line.strip_prefix(key)).map(str::trim);
    match value("Clock Event Device:") {
        Some("<NULL>") => Timer::None,
        Some("lapic") => {
            // It counts `nanoseconds * mult >> shift` times.
            let mult = value("mult:").and_then(|text| text.parse::<u64>().ok());
            let shift = value("shift:").and_then(|text| text.parse::<u32>().ok()).filter(|shift| *shift < 64);
            let rate = mult.zip(shift).and_then(|(mult, shift)| Some(mult.checked_mul(1_000_000_000)? >> shift));
            rate.map_or(Timer::Other, Timer::Local)
        }
        _ => Timer::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_the_first_processors() {
        let list = |device: &str| {
            format!(
                "Tick Device: mode:     1\nBroadcast device\nClock Event Device: <NULL>\ntick_broadcast_mask: 0\n\n\
                 Tick Device: mode:     1\nPer CPU device: 0\nClock Event Device: {device}\n max_delta_ns:   34359738352\n \
                 min_delta_ns:   1000\n mult:           268435456\n shift:          32\n mode:           3\n"
            )
        };
        assert_eq!(timer(&list("lapic")), Timer::Local(62_500_000));
        assert_eq!(timer(&list("<NULL>")), Timer::None);
        for unknown in [&list("hpet"), "", "Per CPU device: 0\nClock Event Device: lapic\n mult: 1\n"] {
            assert_eq!(timer(unknown), Timer::Other, "{unknown}");
        }
    }

    #[test]
    fn the_rate_is_a_word_of_the_command_line() {
        assert_eq!(told("quiet rds.timer_hz=62500000 x"), Some(62_500_000));
        for none in ["quiet", "rds.timer_hz", "rds.timer_hz=", "rds.timer_hz=0", "xrds.timer_hz=1"] {
            assert_eq!(told(none), None, "{none}");
        }
    }
}

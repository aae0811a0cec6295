//! The guest's wall clock. It keeps time by itself; a machine that did not run for a while has to be told.

use rds_protocol::guest::{AdjustClock, Clock};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::error::{SystemError, While};

/// What it says.
pub(crate) fn read() -> Clock {
    Clock { clock_us: now() }
}

/// Microseconds since the Unix epoch.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1000
}

/// Sets it to so many microseconds since the Unix epoch.
pub(crate) fn set(micros: u64) -> Result<(), SystemError> {
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    let time = Timespec { tv_sec: seconds.cast_signed(), tv_nsec: (rest * 1000).cast_signed() };
    clock_settime(ClockId::Realtime, time).while_("set the clock")
}

/// Puts it forward or back, however long the order took to come.
pub(crate) fn adjust(order: AdjustClock) -> Result<Clock, SystemError> {
    if order.by_us != 0 {
        set(now().saturating_add_signed(order.by_us))?;
    }
    Ok(read())
}

//! Prints how many thousand times a second this processor's time stamp counter counts.

use std::arch::x86_64::_rdtsc;
use std::time::{Duration, Instant};

fn main() {
    // SAFETY: every x86-64 processor has it.
    let ticks = || unsafe { _rdtsc() };
    let (begun, first) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(500));
    let (last, took) = (ticks(), begun.elapsed());
    println!("{}", u128::from(last - first) * 1_000_000 / took.as_nanos());
}

//! The agent's log: whole lines on standard error, which is the kernel's log and so the machine's console.
//!
//! Nothing that a program or a client wrote goes in here, and no secret.

use std::fmt::Display;
use std::io::Write;

/// How much a line matters, as the kernel counts (syslog(2)). A quiet console shows failures only.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Level {
    Failure = 3,
    Information = 6,
}

/// Says that something happened.
pub(crate) fn information(message: impl Display) {
    line(Level::Information, &message);
}

/// Says that something went wrong.
pub(crate) fn failure(message: impl Display) {
    line(Level::Failure, &message);
}

/// One write is one record of the kernel's log. A log that can't be written is nobody's problem.
fn line(level: Level, message: &dyn Display) {
    let _ = std::io::stderr().write_all(format!("<{}>rds-agent: {message}\n", level as u8).as_bytes());
}

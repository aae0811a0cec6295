//! The agent's log: whole lines on standard error, which is the kernel's log and so the machine's console.
//!
//! Nothing that a program or a client wrote goes in here, and no secret.

use std::fmt::Display;
use std::io::Write;

/// Writes one line. A log that can't be written is nobody's problem.
pub(crate) fn line(message: impl Display) {
    // One write is one record of the kernel's log.
    let _ = std::io::stderr().write_all(format!("rds-agent: {message}\n").as_bytes());
}

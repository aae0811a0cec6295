//! Failures of system calls, told with what was being done.

use std::io;

use thiserror::Error;

/// A system call that failed.
#[derive(Debug, Error)]
#[error("cannot {action}: {source}")]
pub(crate) struct SystemError {
    action: String,
    source: io::Error,
}

/// Says what was being done when something failed.
pub(crate) trait While<T> {
    /// `action` completes the sentence "cannot …".
    fn while_(self, action: impl Into<String>) -> Result<T, SystemError>;
}

impl<T, E: Into<io::Error>> While<T> for Result<T, E> {
    fn while_(self, action: impl Into<String>) -> Result<T, SystemError> {
        self.map_err(|error| SystemError { action: action.into(), source: error.into() })
    }
}

//! The one error of this crate.

use std::io;
use std::path::Path;

use thiserror::Error;

/// A failure to make an image or one of its parts. Its text tells a person what to do where that is known.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted, with the path.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program that is needed is not installed.
    #[error("`{program}` is not installed; the package `{package}` has it")]
    Missing {
        /// The program.
        program: &'static str,
        /// The distribution's package that holds it.
        package: &'static str,
    },
    /// A program failed.
    #[error("`{program}` failed: {message}")]
    Program {
        /// The program.
        program: &'static str,
        /// The end of what it wrote to standard error, or its exit status.
        message: String,
    },
    /// A program took longer than it may.
    #[error("`{program}` did not end within {seconds} s")]
    Timeout {
        /// The program.
        program: &'static str,
        /// Its time limit.
        seconds: u64,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// An input is not what it has to be.
    #[error("{0}")]
    Invalid(String),
}

impl ImageError {
    /// For `map_err`: says what was attempted on `path`.
    pub(crate) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("cannot {what} {}", path.display());
        move |source| Self::Io { what, source }
    }
}

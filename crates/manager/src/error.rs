//! The one error of every service.
//!
//! A service says what went wrong in the caller's terms; `api::error` alone knows status codes and JSON.
//! Which one to use: the caller can mend it by asking differently → [`Error::Invalid`]; by waiting → [`Error::TooMany`]
//! or [`Error::Unavailable`]; making room on the host's disk → [`Error::Full`]; the state of a thing forbids it now → [`Error::Conflict`]; nobody outside can mend it →
//! [`Error::internal`], whose text reaches the log and never a client.

use std::error::Error as StdError;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use thiserror::Error;

/// Result of a service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a service could not do, and whose fault it was. The texts are shown to clients.
#[derive(Debug, Error)]
pub enum Error {
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// Nobody known is asking.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// Somebody known is asking for what he may not have.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The path exists, but not for this method.
    #[error("Method not allowed")]
    MethodNotAllowed,
    /// The state of a thing does not allow it now.
    #[error("{0}")]
    Conflict(String),
    /// The body is larger than the route takes.
    #[error("Request body is larger than {limit} bytes")]
    TooLarge {
        /// What the route takes, in bytes.
        limit: u64,
    },
    /// The body is of a kind that the route does not take.
    #[error("{0}")]
    UnsupportedMedia(String),
    /// A quota or a rate is used up.
    #[error("{message}")]
    TooMany {
        /// Which one.
        message: String,
        /// When to try again, where that is known.
        retry_after: Option<Duration>,
    },
    /// Something that the server needs is not ready.
    #[error("{0}")]
    Unavailable(String),
    /// There is no room left on the host's disk. Clients see a fixed text.
    #[error("There is no room left on the host's disk")]
    Full(#[source] Box<dyn StdError + Send + Sync>),
    /// A guest answered something that cannot be used.
    #[error("{0}")]
    BadGateway(String),
    /// A guest did not answer in time.
    #[error("{0}")]
    GatewayTimeout(String),
    /// Nobody outside can mend it. Clients see a fixed text.
    #[error("Internal server error")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// An error for the log: what was attempted, and why it failed. A full disk is one that clients learn of.
    pub fn internal(what: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let attempt = Attempt { what: what.into(), source: source.into() };
        if is_full(attempt.source.as_ref()) { Self::Full(Box::new(attempt)) } else { Self::Internal(Box::new(attempt)) }
    }

    /// The request breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::NotFound(message.into())
    }

    /// The state of a thing does not allow it now.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict(message.into())
    }

    /// A stable word for programs, sent beside the message.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_request",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict(_) => "conflict",
            Self::TooLarge { .. } => "too_large",
            Self::UnsupportedMedia(_) => "unsupported_media_type",
            Self::TooMany { .. } => "too_many_requests",
            Self::Unavailable(_) => "unavailable",
            Self::Full(_) => "disk_full",
            Self::BadGateway(_) => "bad_gateway",
            Self::GatewayTimeout(_) => "gateway_timeout",
            Self::Internal(_) => "internal",
        }
    }
}

/// A wait as `Retry-After` tells it: in whole seconds, never too short, and at least one.
pub fn retry_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// `SQLITE_FULL`, sqlite3.h.
const SQLITE_FULL: &str = "13";

/// Whether an error or one of its causes is that there is no room.
fn is_full(error: &(dyn StdError + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    matches!(io, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
        || database.is_some_and(|error| error.code().as_deref() == Some(SQLITE_FULL))
        || matches!(error.downcast_ref(), Some(Error::Full(_)))
        || error.source().is_some_and(is_full)
}

/// What was attempted, around why it failed.
#[derive(Debug)]
struct Attempt {
    what: String,
    source: Box<dyn StdError + Send + Sync>,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Attempt {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Writes an error and its causes in one line, for the log: its lines are the server's, whatever a guest's words are.
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            line.push_str(&format!(": {error}"));
            cause = error.source();
        }
        f.write_str(&line.replace(char::is_control, " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_internal_error_is_only_in_its_chain() {
        let error = Error::internal("cannot open the store", std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "Internal server error");
        assert_eq!(Chain(&error).to_string(), "Internal server error: cannot open the store: disk on fire");
    }

    #[test]
    fn a_chain_is_one_line() {
        let error = Error::BadGateway("it failed\n2026-01-01 INFO all is well\u{1b}[2J".into());
        assert_eq!(Chain(&error).to_string(), "it failed 2026-01-01 INFO all is well [2J");
    }

    #[test]
    fn a_full_disk_is_known_however_deep() {
        let full = || std::io::Error::from(ErrorKind::StorageFull);
        let nested = Error::internal("outside", Error::internal("inside", full()));
        for error in [Error::internal("a disk", full()), nested] {
            assert!(matches!(error, Error::Full(_)), "{error:?}");
            assert_eq!(error.code(), "disk_full");
        }
    }
}

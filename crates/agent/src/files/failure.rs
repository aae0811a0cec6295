//! How a jailed process tells the agent what went wrong: `STATUS message` on its standard error.

use std::io;

use http::StatusCode;

use crate::reply::Refusal;

/// Something that went wrong, as the manager is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: u16,
    message: String,
}

impl Failure {
    /// The request can't be carried out as it is.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self { status: 400, message: message.into() }
    }

    /// A file that failed.
    pub(crate) fn at(path: &str, error: &io::Error) -> Self {
        let (status, message) = match error.raw_os_error() {
            Some(libc::ENOENT) => (404, "there is no such file or directory".into()),
            Some(libc::ELOOP | libc::EXDEV) => (400, "it leads through a symbolic link".into()),
            Some(libc::ENOTDIR) => (400, "it is not a directory".into()),
            Some(libc::EISDIR) => (400, "it is a directory".into()),
            Some(libc::EACCES | libc::EPERM) => (400, "permission denied".into()),
            Some(libc::EROFS) => (400, "it is read-only".into()),
            Some(libc::ENAMETOOLONG) => (400, "the name is too long".into()),
            Some(libc::EEXIST | libc::ENOTEMPTY) => (409, "something else is in its place".into()),
            Some(libc::ENOSPC | libc::EDQUOT) => (507, "the VM's disk is full".into()),
            _ => (500, error.to_string()),
        };
        Self { status, message: format!("{path}: {message}") }
    }

    /// The standard input, if it failed: the archive in it is at fault.
    pub(crate) fn archive(error: &io::Error) -> Self {
        Self::bad(format!("not a sound tar.gz: {error}"))
    }

    pub(crate) fn parse(words: &str) -> Self {
        let (status, message) = words.split_once(' ').unwrap_or_default();
        match status.parse() {
            Ok(status) if (400..600).contains(&status) => Self { status, message: message.trim_end().into() },
            _ => Self { status: 500, message: "the process that handles files was killed".into() },
        }
    }

    pub(crate) fn into_refusal(self) -> Refusal {
        Refusal::new(StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), self.message)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_heard() {
        let failure = Failure::at("/workspace/a", &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(Failure::parse(&failure.to_string()), failure);
    }

    #[test]
    fn what_can_not_be_written_to_is_the_requests_fault() {
        let failure = Failure::at("/workspace/peers/a", &io::Error::from_raw_os_error(libc::EROFS));
        assert_eq!(failure, Failure::bad("/workspace/peers/a: it is read-only"));
    }

    #[test]
    fn words_that_are_none_are_a_failure_of_the_agent() {
        for words in ["", "404", "200 fine", "99999 x", "x y"] {
            assert_eq!(Failure::parse(words).status, 500, "{words:?}");
        }
    }
}

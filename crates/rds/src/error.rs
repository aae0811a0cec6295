//! What can go wrong on the way of a command, the exit code it ends with, and what a person can do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Exit code when a program in a VM was lost: how it ended is not known.
const LOST: u8 = 125;

/// Exit code when nobody reads on: that of a program that SIGPIPE ended.
const READER_GONE: u8 = 128 + 13;

/// A failed command.
#[derive(Debug, Error)]
pub(crate) enum CliError {
    /// The server answered with an error.
    #[error("{message}")]
    Refused {
        /// Status of the reply.
        status: u16,
        /// The server's words.
        message: String,
        /// The server's name for the reply, to find it in its log.
        request_id: Option<String>,
    },
    /// No server answered.
    #[error("cannot reach the server at {url}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Why it was not found.
        reason: String,
    },
    /// The connection broke before the reply was there.
    #[error("the connection to the server at {url} broke: {reason}")]
    Broken {
        /// Whereto.
        url: String,
        /// Why.
        reason: String,
    },
    /// A program was sent to a VM, and how it ended is not known.
    #[error("{0}")]
    Lost(String),
    /// The server answered something that this program does not understand.
    #[error("unexpected answer from the server: {0}")]
    Answer(String),
    /// Nothing on the server has this name.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A local file or directory failed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whoever read the output has gone (`| head`). Nothing is said about it.
    #[error("nobody reads the output any more")]
    ReaderGone,
    /// A signal ended the command.
    #[error("interrupted")]
    Ended(i32),
    /// Anything else, in words for a person.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// Makes an error about a local file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Makes an error about standard output or standard error.
    pub(crate) fn output(stream: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::file(stream)(source),
        }
    }

    /// The same of a call that runs a program: it may have been sent when the connection broke, or the server lost the
    /// VM while it ran.
    pub(crate) fn of_a_run(self) -> Self {
        match self {
            Self::Broken { .. } => Self::Lost(format!("{self}; the program may have run, wholly or in part")),
            Self::Refused { status: 502 | 504, .. } => Self::Lost(match self.hint() {
                Some(hint) => format!("{self}; {hint}"),
                None => self.to_string(),
            }),
            other => other,
        }
    }

    /// The same of a call that makes something, and that the server may have carried out when the connection broke.
    pub(crate) fn of_a_making(self, list: &str) -> Self {
        match self {
            Self::Broken { .. } => Self::Failed(format!("{self}; it may have been made: `{list}` shows")),
            other => other,
        }
    }

    /// The process's exit code; `docs/cli.md` lists them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Refused { status: 401 | 403, .. } => 4,
            Self::NotFound(_) | Self::Refused { status: 404, .. } => 5,
            Self::Lost(_) => LOST,
            Self::ReaderGone => READER_GONE,
            Self::Ended(signal) => u8::try_from(128 + signal).unwrap_or(1),
            _ => 1,
        }
    }

    /// What to do next, where that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => {
                Some("start it with `rds up`, or name another one with --url or RDS_URL".into())
            }
            Self::Refused { status: 401, .. } => Some(
                "give the key with --api-key or RDS_API_KEY; `rds up` prints it and keeps it in its storage root"
                    .into(),
            ),
            Self::Refused { status: 409, .. } => Some("`rds vm ls` shows the state of every VM".into()),
            Self::Refused { status: 413, .. } => Some("send less at once, for example a part of the directory".into()),
            Self::Refused { status: 429, message, .. } if message.contains("quota") => {
                Some("`rds vm rm VM` frees a place; MAX_VMS sets the limit of the server".into())
            }
            Self::Refused { status: 429, .. } => Some("wait a moment; the server limits requests a minute".into()),
            Self::Refused { status: 500.., request_id: Some(id), .. } => {
                Some(format!("the server's log says more under request id {id}"))
            }
            _ => None,
        }
    }
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| match cause.to_string() {
        cause if text.ends_with(&cause) => text,
        cause => format!("{text}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_vm_or_connection_was_lost_ends_with_125() {
        let refused = |status| CliError::Refused { status, message: "lost".into(), request_id: Some("r1".into()) };
        let broken = CliError::Broken { url: "u".into(), reason: "r".into() };
        for (error, code) in
            [(broken, 125), (refused(502), 125), (refused(504), 125), (refused(500), 1), (refused(409), 1)]
        {
            assert_eq!(error.of_a_run().exit_code(), code);
        }
        assert!(refused(502).of_a_run().to_string().contains("request id r1"));
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_of_a_file() {
        let of = |kind: io::ErrorKind| CliError::output("standard output")(kind.into());
        assert_eq!(of(io::ErrorKind::BrokenPipe).exit_code(), 141);
        assert_eq!(of(io::ErrorKind::StorageFull).exit_code(), 1);
    }

    #[test]
    fn all_causes_are_told_once() {
        #[derive(Debug, Error)]
        #[error("cannot be read")]
        struct Silent(#[source] io::Error);

        let inner = io::Error::other(Silent(io::Error::other("damaged")));
        assert_eq!(chain(&CliError::File { path: "a".into(), source: inner }), "a: cannot be read: damaged");
    }
}

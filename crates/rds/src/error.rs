//! What can go wrong on the way of a command, the exit code it ends with, and what a person can do about it.

use std::path::PathBuf;

use thiserror::Error;

/// Exit code when a program in a VM was lost: how it ended is not known.
const LOST: u8 = 125;

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
        source: std::io::Error,
    },
    /// Anything else, in words for a person.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// Makes an error about a local file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// The same of a call that runs a program: it may have been sent when the connection broke.
    pub(crate) fn of_a_run(self) -> Self {
        match self {
            Self::Broken { .. } => Self::Lost(format!("{self}; the program may have run, wholly or in part")),
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

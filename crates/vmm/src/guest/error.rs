//! How a call into a guest can fail.

use rds_protocol::frame::FrameError;
use rds_protocol::link::LinkError;
use thiserror::Error;

use crate::HypervisorError;
use crate::hypervisor::legible;

/// A call into a guest that failed. Nothing is ever sent a second time by this crate.
#[derive(Debug, Error)]
pub enum GuestError {
    /// The channel cannot be opened, or broke.
    #[error("the guest cannot be reached: {cause}")]
    Unreachable {
        /// Whether the guest may have carried the call out, wholly or in part. False only if it certainly did not.
        may_have_run: bool,
        /// What happened to the channel.
        cause: String,
    },
    /// The agent refused the call.
    #[error("{message}")]
    Status {
        /// Its HTTP status, 400..=599.
        status: u16,
        /// Its words, cut to [`MESSAGE_CHARS`] characters, in one line. The guest chooses them.
        message: String,
    },
    /// The agent answered something that no agent of this generation answers.
    #[error("the guest answered nonsense: {0}")]
    Protocol(String),
    /// The agent did not answer in time. The call may have been carried out.
    #[error("the guest did not answer in time")]
    Timeout,
}

/// Characters of an agent's words that are kept.
pub const MESSAGE_CHARS: usize = 2048;

impl GuestError {
    /// Whether the guest may have carried the call out, wholly or in part.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Unreachable { may_have_run, .. } => *may_have_run,
            Self::Status { .. } => false,
            Self::Protocol(_) | Self::Timeout => true,
        }
    }

    /// The call was not sent.
    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
    pub(super) fn unsent(cause: impl ToString) -> Self {
        Self::Unreachable { may_have_run: false, cause: cause.to_string() }
    }

    /// The channel broke after the call had been sent.
    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
    pub(super) fn broken(cause: impl ToString) -> Self {
        Self::Unreachable { may_have_run: true, cause: cause.to_string() }
    }

    /// The agent's refusal, made fit to be shown.
    pub(super) fn status(status: u16, message: &str) -> Self {
        Self::Status { status, message: legible(message.chars(), MESSAGE_CHARS) }
    }
}

impl From<LinkError> for GuestError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Timeout => Self::Timeout,
            LinkError::Io(error) => Self::unsent(error),
        }
    }
}

impl From<HypervisorError> for GuestError {
    fn from(error: HypervisorError) -> Self {
        Self::unsent(error)
    }
}

impl From<FrameError> for GuestError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::broken(error),
            other => Self::Protocol(other.to_string()),
        }
    }
}

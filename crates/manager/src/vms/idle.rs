//! What becomes of a VM that nobody uses.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is done with an idle VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdleAction {
    /// It stands still in memory until somebody uses it.
    #[default]
    Pause,
    /// It is removed with its disk.
    Delete,
}

impl IdleAction {
    /// The word of the API.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Delete => "delete",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Pause, Self::Delete].into_iter().find(|action| action.as_str() == text)
    }
}

/// When a running VM is idle, and what is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// Without a call into it or out of it.
    pub after: Duration,
    /// What is done then.
    pub action: IdleAction,
}

//! The life of a VM, as a pure state machine.
//!
//! ```text
//!            create                     stop                     synced
//!  (nothing) ─────► CREATED ─► STARTING ─────► RUNNING ─► STOPPING ─────► STOPPED
//!                      │          ▲ │             │           │              │
//!                      │ failed   │ └─ failed ────┼───────────┼───────────► (as it was before: nothing or STOPPED)
//!                      ▼          │               │ its process ended        │
//!                  (nothing)      │               └─────────────────────────►│
//!                                 └──────────────────── start ───────────────┘
//!
//!  RUNNING ─ pause ─► PAUSED ─ resume, or a call ─► RUNNING; a stop resumes first; a machine that ends: STOPPED.
//!  delete is accepted in every state.
//! ```

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of a VM, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum VmState {
    /// Accepted; nothing runs yet.
    Created,
    /// Its machine boots, or its agent is being told who it is.
    Starting,
    /// Its agent answers.
    Running,
    /// Its machine stands still in memory; whoever uses it wakes it.
    Paused,
    /// Its disk is being synced and its machine ended.
    Stopping,
    /// It has a disk and no machine.
    Stopped,
    /// Its files or its machine are not as they should be; it can be looked at and deleted.
    Error,
}

/// Something that happens to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A client (or a create) wants it to run.
    Start,
    /// Its agent was told who it is.
    Ready,
    /// Its machine was made to stand still.
    Pause,
    /// Its machine goes on, and its agent answers.
    Resume,
    /// A client wants it to stop.
    Stop,
    /// Its machine is gone: as asked, by itself, or because a start failed.
    Ended,
    /// Its disk is missing, or its machine can't be ended.
    Broke,
}

impl VmState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Created, Self::Starting, Self::Running, Self::Paused, Self::Stopping, Self::Stopped, Self::Error];

    /// The state after `event`, or `None` if the event makes no sense in this state.
    pub fn after(self, event: Event) -> Option<Self> {
        Some(match (self, event) {
            (Self::Created | Self::Stopped, Event::Start) => Self::Starting,
            (Self::Starting, Event::Ready) => Self::Running,
            (Self::Running, Event::Pause) => Self::Paused,
            (Self::Paused, Event::Resume) => Self::Running,
            (Self::Running, Event::Stop) => Self::Stopping,
            (Self::Starting | Self::Running | Self::Paused | Self::Stopping, Event::Ended) => Self::Stopped,
            (_, Event::Broke) => Self::Error,
            _ => return None,
        })
    }

    /// The word of the wire contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Error => "ERROR",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_life() {
        let mut state = VmState::Created;
        for event in [Event::Start, Event::Ready, Event::Stop, Event::Ended, Event::Start, Event::Ready, Event::Ended] {
            state = state.after(event).unwrap();
        }
        assert_eq!(state, VmState::Stopped);
    }

    #[test]
    fn only_what_is_stopped_starts_and_only_what_runs_stops() {
        use VmState::{Error, Paused, Running, Starting, Stopped, Stopping};
        for state in [Starting, Running, Paused, Stopping, Error] {
            assert_eq!(state.after(Event::Start), None);
        }
        for state in [Starting, Paused, Stopping, Stopped, Error] {
            assert_eq!(state.after(Event::Stop), None);
            assert_eq!(state.after(Event::Pause), None);
        }
    }
}

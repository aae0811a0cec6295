//! The signals that end a command which has something to put right first.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;

/// Listens for SIGINT, SIGTERM and SIGHUP. They do not end the process by themselves any more; one that comes while nobody
/// waits is not lost.
#[derive(Debug)]
pub(crate) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Ending {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let on = |kind| signal(kind).map_err(CliError::file("signals"));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// Waits for one.
    pub(crate) async fn came(&mut self) -> CliError {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
        };
        CliError::Ended(kind.as_raw_value())
    }

    /// Does something that a signal breaks off.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        tokio::select! {
            biased;
            ended = self.came() => Err(ended),
            done = work => done,
        }
    }
}

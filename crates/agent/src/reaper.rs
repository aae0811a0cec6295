//! The one place that waits for processes: as PID 1 the agent inherits every orphan, and each of its own children has
//! somebody who wants to know how it ended.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Instant;

use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::{SystemError, While};

/// Processes that are reaped before everything else of the agent has its turn.
const AT_ONCE: usize = 64;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit status; 128 + signal if a signal ended it.
    pub(crate) code: i32,
    /// When it was reaped.
    pub(crate) at: Instant,
}

impl Ended {
    /// The end of a process that somebody else reaped, which can't be.
    pub(crate) fn unknown() -> Self {
        Self { code: -1, at: Instant::now() }
    }
}

/// Waits for all children.
#[derive(Default)]
pub(crate) struct Reaper {
    waiting: RefCell<HashMap<Pid, oneshot::Sender<Ended>>>,
}

impl Reaper {
    /// The end of a child of the agent. It must be asked for in the same turn that started the child: the agent has one
    /// thread, so the child cannot have been reaped before.
    pub(crate) fn watch(&self, child: Pid) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(child, sender);
        receiver
    }

    /// Reaps for ever.
    pub(crate) async fn run(&self) -> Result<(), SystemError> {
        let mut children: Signal = signal(SignalKind::child()).while_("listen for ended children")?;
        loop {
            while self.reap() {
                tokio::task::yield_now().await;
            }
            children.recv().await;
        }
    }

    /// Reaps some. Says whether there may be more: programs can end as fast as they are reaped, and the agent has one thread.
    fn reap(&self) -> bool {
        for _ in 0..AT_ONCE {
            let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) else { return false };
            if let Some(sender) = self.waiting.borrow_mut().remove(&pid) {
                let _ = sender.send(Ended { code: code(status), at: Instant::now() });
            }
        }
        true
    }
}

fn code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => -1,
    }
}

//! What a VM is asked, and in which order.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::Reply;
use crate::egress::PatchNetwork;
use crate::peers::PatchLink;
use crate::secrets::SecretEnv;

/// What a handler may ask of a VM. The answer comes when it is done.
#[derive(Debug)]
pub(in crate::vms) enum Command {
    Start(Reply),
    Stop(Reply),
    Pause(Reply),
    Resume(Reply),
    Delete(Reply),
    SetSecrets(SecretEnv, Reply),
    PatchNetwork(PatchNetwork, Reply),
    SyncPeers(Reply),
    PatchLink(String, PatchLink, Reply),
    Unlink(String, Reply),
}

impl Command {
    pub(super) fn into_reply(self) -> Reply {
        match self {
            Self::Start(reply)
            | Self::Stop(reply)
            | Self::Pause(reply)
            | Self::Resume(reply)
            | Self::Delete(reply)
            | Self::SetSecrets(_, reply)
            | Self::PatchNetwork(_, reply)
            | Self::SyncPeers(reply)
            | Self::PatchLink(_, _, reply)
            | Self::Unlink(_, reply) => reply,
        }
    }
}

/// What the VM is asked, in order.
pub(super) struct Inbox {
    pub commands: mpsc::Receiver<Command>,
    /// What came while the agent was being reached; it is next.
    pub deferred: VecDeque<Command>,
}

impl Inbox {
    /// Whether a stop waits.
    pub(super) fn is_to_stop(&self) -> bool {
        self.deferred.iter().any(|command| matches!(command, Command::Stop(_)))
    }

    /// Takes out the first stop that waits.
    pub(super) fn take_stop(&mut self) -> Option<Reply> {
        let first = self.deferred.iter().position(|command| matches!(command, Command::Stop(_)))?;
        self.deferred.remove(first).map(Command::into_reply)
    }

    /// The next command; `None` when the manager ends.
    pub(super) async fn next(&mut self) -> Option<Command> {
        match self.deferred.pop_front() {
            Some(command) => Some(command),
            None => self.commands.recv().await,
        }
    }
}

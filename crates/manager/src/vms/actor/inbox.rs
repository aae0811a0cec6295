//! What a VM is asked, and in which order.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::Reply;
use crate::egress::NetworkPolicy;
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
    SetNetwork(NetworkPolicy, Reply),
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
            | Self::SetNetwork(_, reply)
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
    /// The next command; `None` when the manager ends.
    pub(super) async fn next(&mut self) -> Option<Command> {
        match self.deferred.pop_front() {
            Some(command) => Some(command),
            None => self.commands.recv().await,
        }
    }
}

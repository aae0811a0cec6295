//! What a VM is asked, and in which order.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::Reply;
use crate::egress::PatchNetwork;
use crate::error::Error;
use crate::peers::PatchLink;
use crate::secrets::SecretEnv;

/// Commands that may wait while the agent is being reached.
const DEFERRED: usize = 32;

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

    /// Whether it is to be carried out. What may take something from a guest that does not answer is, whoever still waits for it.
    fn is_wanted(&self) -> bool {
        match self {
            Self::Start(reply) | Self::Pause(reply) | Self::Resume(reply) | Self::SyncPeers(reply) => {
                !reply.to.is_closed()
            }
            Self::Stop(_)
            | Self::Delete(_)
            | Self::SetSecrets(..)
            | Self::PatchNetwork(..)
            | Self::PatchLink(..)
            | Self::Unlink(..) => true,
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
    /// Has a command wait for its turn, if there is room.
    pub(super) fn defer(&mut self, command: Command) {
        self.deferred.retain(Command::is_wanted);
        // Every call into a paused VM asks it to go on, and holds no more than its answer.
        let wakes = |command: &Command| matches!(command, Command::Resume(_));
        let first_stop = matches!(command, Command::Stop(_)) && !self.is_to_stop();
        let waiting = self.deferred.iter().filter(|command| !wakes(command)).count();
        if wakes(&command) || first_stop || waiting < DEFERRED {
            self.deferred.push_back(command);
        } else {
            let why = "Too many requests wait for the VM, whose agent is busy or does not answer: try again later";
            command.into_reply().answer(Err(Error::Unavailable(why.into())));
        }
    }

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
        while let Some(command) = self.deferred.pop_front() {
            if command.is_wanted() {
                return Some(command);
            }
        }
        self.commands.recv().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::error::Result;

    type Asker = oneshot::Receiver<Result<()>>;

    fn inbox() -> Inbox {
        Inbox { commands: mpsc::channel(1).1, deferred: VecDeque::new() }
    }

    fn ask(inbox: &mut Inbox, command: impl FnOnce(Reply) -> Command) -> Asker {
        let (reply, asker) = Reply::channel();
        inbox.defer(command(reply));
        asker
    }

    #[tokio::test]
    async fn only_what_takes_from_a_vm_outlives_its_asker() {
        let mut inbox = inbox();
        for command in [Command::Stop, Command::Pause, Command::Resume, Command::SyncPeers] {
            ask(&mut inbox, command);
        }
        let stays = ask(&mut inbox, Command::Pause);
        ask(&mut inbox, |reply| Command::SetSecrets(SecretEnv::default(), reply));
        let goes = ask(&mut inbox, Command::SyncPeers);
        assert_eq!(inbox.deferred.len(), 4, "what nobody waits for takes no room");
        drop(goes);
        assert!(matches!(inbox.next().await, Some(Command::Stop(_))));
        assert!(matches!(inbox.next().await, Some(Command::Pause(_))));
        assert!(matches!(inbox.next().await, Some(Command::SetSecrets(..))));
        assert!(inbox.next().await.is_none());
        drop(stays);
    }

    #[test]
    fn only_so_many_wait_but_a_stop_and_whoever_wakes_the_vm() {
        let mut inbox = inbox();
        let mut woken: Vec<Asker> = (0..2 * DEFERRED).map(|_| ask(&mut inbox, Command::Resume)).collect();
        let mut waiting: Vec<Asker> = (0..DEFERRED).map(|_| ask(&mut inbox, Command::Pause)).collect();
        let mut refused = ask(&mut inbox, Command::Pause);
        assert!(matches!(refused.try_recv(), Ok(Err(Error::Unavailable(_)))));
        waiting.push(ask(&mut inbox, Command::Stop));
        let mut second = ask(&mut inbox, Command::Stop);
        assert!(matches!(second.try_recv(), Ok(Err(Error::Unavailable(_)))));
        woken.push(ask(&mut inbox, Command::Resume));
        assert!(woken.iter_mut().chain(&mut waiting).all(|asker| asker.try_recv().is_err()), "they wait");
        // Who goes makes room.
        waiting.drain(..2);
        waiting.push(ask(&mut inbox, Command::Pause));
        assert!(waiting.iter_mut().all(|asker| asker.try_recv().is_err()));
    }
}

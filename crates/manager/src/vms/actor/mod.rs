//! The task that drives one VM. Nobody else changes a VM; handlers send it commands and read what it publishes.
//!
//! Its machine outlives it: when the manager ends, the task ends and the machine runs on until the next manager adopts it.

mod ending;
mod inbox;
mod pause;
mod settings;
mod start;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rds_protocol::link::History;
use rds_vmm::guest::GuestClient;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use super::host::Host;
use super::idle::IdleAction;
use super::record::{Live, VmRecord};
use super::state::{Event, VmState};
use super::uses::Uses;
use crate::clock;
use crate::error::{Error, Result};
use crate::pool::Machine;

pub(super) use inbox::Command;
use inbox::Inbox;
use settings::Effort;

/// How often a machine is looked after.
const CARE_EVERY: Duration = Duration::from_secs(5);

/// Between two attempts to remove a VM that has lived as long as it may.
const REMOVAL_PAUSE: Duration = Duration::from_secs(30);

/// Who asked for something, and is told when it is done. What is done meanwhile is part of the asker's trace.
#[derive(Debug)]
pub(super) struct Reply {
    to: oneshot::Sender<Result<()>>,
    span: Span,
}

impl Reply {
    pub(super) fn channel() -> (Self, oneshot::Receiver<Result<()>>) {
        let (to, done) = oneshot::channel();
        (Self { to, span: Span::current() }, done)
    }

    /// Whoever asked may have gone meanwhile.
    fn answer(self, result: Result<()>) {
        let _ = self.to.send(result);
    }
}

/// How a task takes up its VM.
#[derive(Debug)]
pub(super) enum Begin {
    /// It is new: make it run, from this machine if there is one, or remove every trace of it.
    Create(Reply, Option<Box<Machine>>),
    /// It is one of several new ones, which run when this says so, or are removed.
    CreateWithOthers(Reply, watch::Receiver<bool>),
    /// Its machine was running under an earlier manager.
    Adopt,
    /// Its machine was paused under an earlier manager.
    Paused,
    /// It has a disk and no machine.
    Stopped,
    /// Its disk is missing.
    Broken(Error),
}

pub(super) struct Actor {
    host: Arc<Host>,
    vm: Arc<VmRecord>,
    live: watch::Sender<Live>,
    inbox: Inbox,
    uses: Arc<Uses>,
    /// When the VM has lived as long as it may, however the host's clock is set meanwhile.
    ends: Option<Instant>,
    /// Answers the calls of its code to its peers, while it runs and has any.
    calls: Option<AbortOnDropHandle<()>>,
    /// It is stopped, and that could not be written down yet.
    owed: bool,
}

/// What becomes of a command, other than a deletion, that comes while something is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// It makes no sense in the state that the VM is in.
    Refuse,
    /// It does, but has to wait for its turn.
    Defer,
}

/// What comes next.
enum Next {
    /// Drive a machine whose agent has answered.
    Run(GuestClient),
    /// Wait with a paused machine.
    Sleep,
    /// Wait for somebody to start it.
    Rest,
    /// Remove every trace and tell the one who asked.
    Remove(Option<Reply>),
    /// The manager ends; the machine does not.
    Leave,
}

/// When a machine is looked after again.
struct Care {
    every: Interval,
    /// Whether the host's disk was nearly full the last time.
    crowded: bool,
}

impl Care {
    fn new() -> Self {
        let mut every = interval(CARE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { every, crowded: false }
    }

    async fn due(&mut self) {
        self.every.tick().await;
    }
}

/// The end of some work that a deletion may cut short.
enum Work<T> {
    Done(T),
    Deleted(Reply),
    Leave,
}

impl Actor {
    pub(super) fn new(
        host: Arc<Host>,
        vm: Arc<VmRecord>,
        live: watch::Sender<Live>,
        commands: mpsc::Receiver<Command>,
        uses: Arc<Uses>,
    ) -> Self {
        let (ends, inbox) = (end_of(&vm), Inbox { commands, deferred: VecDeque::new() });
        Self { host, vm, live, inbox, uses, ends, calls: None, owed: false }
    }

    pub(super) async fn run(mut self, begin: Begin) {
        let mut next = match begin {
            Begin::Create(reply, pooled) => self.create(reply, pooled).await,
            Begin::CreateWithOthers(reply, all) => self.create_with_others(reply, all).await,
            Begin::Adopt => self.adopt().await,
            Begin::Paused => self.adopt_paused().await,
            Begin::Stopped => Next::Rest,
            Begin::Broken(why) => self.broke(why).await,
        };
        loop {
            next = match next {
                Next::Run(guest) => self.drive(guest).await,
                Next::Sleep => self.sleep().await,
                Next::Rest => self.rest().await,
                Next::Remove(reply) => match self.remove().await {
                    Ok(()) => return answer(reply, Ok(())),
                    Err(error) => {
                        answer(reply, Err(unfinished()));
                        self.broke(error).await
                    }
                },
                Next::Leave => return,
            };
        }
    }

    /// Waits for a command while there is no machine.
    async fn rest(&mut self) -> Next {
        loop {
            let state = self.state();
            let command = tokio::select! {
                command = self.inbox.next() => command,
                () = due(self.ends, state) => return self.expired().await,
                () = sleep(CARE_EVERY), if self.owed => {
                    let _ = self.write_stopped().await;
                    continue;
                }
            };
            match command {
                Some(Command::Start(reply)) if state == VmState::Stopped => {
                    if let Some(next) = self.start(reply).await {
                        return next;
                    }
                }
                Some(Command::Delete(reply)) => return Next::Remove(Some(reply)),
                Some(Command::SetSecrets(secrets, reply)) => {
                    let kept = self.keep_secrets(&secrets, false).await;
                    reply.answer(kept);
                }
                Some(Command::PatchNetwork(patch, reply)) => {
                    let set = self.patch_network(patch).await;
                    reply.answer(set);
                }
                Some(Command::PatchLink(alias, patch, reply)) => {
                    if let Some(next) = self.patch_link(&alias, &patch, None, reply).await {
                        return next;
                    }
                }
                Some(Command::Unlink(alias, reply)) => {
                    if let Some(next) = self.unlink(&alias, None, reply).await {
                        return next;
                    }
                }
                Some(other) => refuse(other.into_reply(), state),
                None => return Next::Leave,
            }
        }
    }

    /// Watches over a running machine until it is stopped, deleted or ends.
    async fn drive(&mut self, mut guest: GuestClient) -> Next {
        let host = Arc::clone(&self.host);
        let dir = host.dir(self.vm.id);
        let mut care = Care::new();
        // However long its start took: nobody could use it before.
        self.uses.open();
        self.publish(|live| live.guest = Some(guest.clone()));
        loop {
            tokio::select! {
                command = self.inbox.next() => match command {
                    Some(Command::Start(reply) | Command::Resume(reply)) => refuse(reply, VmState::Running),
                    Some(Command::Pause(reply)) => {
                        if let Some(next) = self.pause(&guest, Some(reply)).await {
                            return next;
                        }
                    }
                    Some(Command::Stop(reply)) => return self.stop(Some(guest), reply).await,
                    Some(Command::Delete(reply)) => return Next::Remove(Some(reply)),
                    Some(Command::SetSecrets(secrets, reply)) => {
                        guest = match self.rotate(&secrets, guest, reply).await {
                            Ok(same) => same,
                            Err(next) => return next,
                        };
                    }
                    Some(Command::SyncPeers(reply)) => {
                        let links = Arc::clone(&self.live.borrow().settings.links);
                        if let Some(next) = self.sync_peers(links, &guest, reply, Effort::Needed).await {
                            return next;
                        }
                    }
                    Some(Command::PatchNetwork(patch, reply)) => {
                        let set = self.patch_network(patch).await;
                        reply.answer(set);
                    }
                    Some(Command::PatchLink(alias, patch, reply)) => {
                        if let Some(next) = self.patch_link(&alias, &patch, Some(&guest), reply).await {
                            return next;
                        }
                    }
                    Some(Command::Unlink(alias, reply)) => {
                        if let Some(next) = self.unlink(&alias, Some(&guest), reply).await {
                            return next;
                        }
                    }
                    None => return Next::Leave,
                },
                () = host.hypervisor.wait(&dir) => return self.crashed("Its machine ended by itself").await,
                () = guest.closed() => {
                    self.publish(|live| live.guest = None);
                    match self.reach(None, History::Used, "Its machine ended by itself").await {
                        Ok(again) => guest = again,
                        Err(next) => return next,
                    }
                    self.publish(|live| live.guest = Some(guest.clone()));
                }
                () = care.due() => self.take_care(&mut care).await,
                action = idleness(&self.vm, &self.uses) => match action {
                    IdleAction::Pause => {
                        if let Some(next) = self.pause(&guest, None).await {
                            return next;
                        }
                    }
                    // A call may have begun at the last moment: it is not cut off.
                    IdleAction::Delete if self.uses.shut().is_ok() => return self.expired().await,
                    IdleAction::Delete => {}
                },
                () = expiry(self.ends) => return self.expired().await,
            }
        }
    }

    /// Does what a machine that runs needs every few seconds. One that waits for room on the host's disk tries again.
    async fn take_care(&self, care: &mut Care) {
        self.host.look_after(self.vm.id);
        let was_crowded = std::mem::replace(&mut care.crowded, self.host.is_crowded());
        if (care.crowded || was_crowded)
            && let Err(error) = self.host.hypervisor.retry_writes(&self.host.dir(self.vm.id)).await
        {
            tracing::debug!(vm = %self.vm.id, %error, "cannot have a machine try its writes again");
        }
    }

    /// Lets `work` run to its end unless the VM is deleted or the manager ends meanwhile.
    async fn unless_deleted<T>(&mut self, meanwhile: Meanwhile, work: impl Future<Output = T>) -> Work<T> {
        tokio::pin!(work);
        loop {
            let command = tokio::select! {
                done = &mut work => return Work::Done(done),
                command = self.inbox.commands.recv() => command,
            };
            match command {
                Some(Command::Delete(reply)) => return Work::Deleted(reply),
                Some(command) if meanwhile == Meanwhile::Defer => self.defer(command),
                Some(command) => refuse(command.into_reply(), self.state()),
                None => return Work::Leave,
            }
        }
    }

    /// Has a command wait for its turn, unless it makes no sense in the state that the VM is in.
    fn defer(&mut self, command: Command) {
        match (command, self.state()) {
            // A stop may be carried out before its turn, and this after it.
            (Command::Start(reply), state) | (Command::Resume(reply), state @ VmState::Running) => refuse(reply, state),
            (command, _) => self.inbox.defer(command),
        }
    }

    fn state(&self) -> VmState {
        self.live.borrow().state
    }

    fn advance(&self, event: Event) {
        self.live.send_modify(|live| match live.state.after(event) {
            Some(state) => live.state = state,
            None => tracing::error!(vm = %self.vm.id, state = ?live.state, ?event, "an event that makes no sense"),
        });
    }

    fn publish(&self, change: impl FnOnce(&mut Live)) {
        self.live.send_modify(change);
    }

    async fn record(&self, kind: &'static str, message: &str) {
        self.host.activity.record(kind, &self.vm.id.to_string(), message, None).await;
    }
}

/// When the VM has lived as long as it may, by the host's clock as it is now; `None` if it may live on.
fn end_of(vm: &VmRecord) -> Option<Instant> {
    let left = vm.expires_at()?.saturating_sub(clock::now_ms());
    Instant::now().checked_add(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

/// Returns when the VM has lived as long as it may; never if it may live on.
async fn expiry(ends: Option<Instant>) {
    match ends {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// The same for a VM without a machine. One that could not be removed is tried again after a while.
async fn due(ends: Option<Instant>, state: VmState) {
    if state == VmState::Error {
        sleep(REMOVAL_PAUSE).await;
    }
    expiry(ends).await;
}

/// Returns when nobody has used the VM for as long as it is to wait for that; never if it waits for ever.
async fn idleness(vm: &VmRecord, uses: &Uses) -> IdleAction {
    let Some(idle) = vm.spec.idle else { return std::future::pending().await };
    uses.idle(idle.after).await;
    idle.action
}

fn refuse(reply: Reply, state: VmState) {
    reply.answer(Err(Error::conflict(format!("VM is {}", state.as_str()))));
}

/// What a client learns of a failure that left the VM in state ERROR.
fn unfinished() -> Error {
    Error::internal("a VM is in state ERROR now", "see the error before")
}

/// Tells who asked, if anybody did.
fn answer(reply: Option<Reply>, result: Result<()>) {
    if let Some(reply) = reply {
        reply.answer(result);
    }
}

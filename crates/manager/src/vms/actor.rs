//! The task that drives one VM. Nobody else changes a VM; handlers send it commands and read what it publishes.
//!
//! Its machine outlives it: when the manager ends, the task ends and the machine runs on until the next manager adopts it.

mod ending;
mod pause;
mod settings;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rds_protocol::link::History;
use rds_vmm::guest::GuestClient;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span};

use super::idle::IdleAction;
use super::provision::{Host, Started};
use super::record::{Live, VmRecord, to_json};
use super::state::{Event, VmState};
use super::uses::Uses;
use crate::clock;
use crate::egress::NetworkPolicy;
use crate::error::{Chain, Error, Result};
use crate::metrics;
use crate::peers::PatchLink;
use crate::peers::token::BridgeToken;
use crate::pool::Machine;
use crate::secrets::SecretEnv;

/// How long one attempt to reach a running guest's agent again may take.
const RECONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Between two attempts to reach an agent whose machine runs.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// How often a machine's logs are kept within bounds.
const TRIM_EVERY: Duration = Duration::from_secs(5);

pub(super) type Reply = oneshot::Sender<Result<()>>;

/// What a handler may ask of a VM. The answer comes when it is done.
#[derive(Debug)]
pub(super) enum Command {
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
    fn into_reply(self) -> Reply {
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

/// How a task takes up its VM.
#[derive(Debug)]
pub(super) enum Begin {
    /// It is new: make it run, from this machine if there is one, or remove every trace of it. The span is that of whoever
    /// asked.
    Create(Reply, Option<Box<Machine>>, Span),
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
    /// Answers the calls of its code to its peers, while it runs and has any.
    calls: Option<AbortOnDropHandle<()>>,
}

/// What the VM is asked, in order.
struct Inbox {
    commands: mpsc::Receiver<Command>,
    /// What came while the agent was being reached; it is next.
    deferred: VecDeque<Command>,
}

impl Inbox {
    /// The next command; `None` when the manager ends.
    async fn next(&mut self) -> Option<Command> {
        match self.deferred.pop_front() {
            Some(command) => Some(command),
            None => self.commands.recv().await,
        }
    }
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
        Self { host, vm, live, inbox: Inbox { commands, deferred: VecDeque::new() }, uses, calls: None }
    }

    pub(super) async fn run(mut self, begin: Begin) {
        let mut next = match begin {
            Begin::Create(reply, pooled, span) => self.create(reply, pooled, span).await,
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
                    Ok(()) => {
                        self.record("vm.deleted", "VM deleted").await;
                        return answer(reply, Ok(()));
                    }
                    Err(error) => {
                        answer(reply, Err(unfinished()));
                        self.broke(error).await
                    }
                },
                Next::Leave => return,
            };
        }
    }

    async fn create(&mut self, reply: Reply, pooled: Option<Box<Machine>>, span: Span) -> Next {
        match self.boot(pooled).instrument(span).await {
            Work::Done(Ok(guest)) => {
                self.record("vm.created", "VM created").await;
                answer(Some(reply), Ok(()));
                Next::Run(guest)
            }
            Work::Done(Err(error)) => {
                // The answer comes after the removal: whoever is told that a create failed finds nothing left of it.
                if let Err(remains) = self.remove().await {
                    tracing::error!(vm = %self.vm.id, error = %Chain(&remains), "a failed create left something");
                }
                answer(Some(reply), Err(error));
                Next::Leave
            }
            Work::Deleted(deleter) => {
                answer(Some(reply), Err(Error::conflict("The VM was deleted while it was created")));
                Next::Remove(Some(deleter))
            }
            Work::Leave => Next::Leave,
        }
    }

    /// Takes up a machine that an earlier manager left running.
    async fn adopt(&mut self) -> Next {
        self.publish(|live| live.state = VmState::Running);
        // It stands still if that manager was killed while it paused it; one that runs takes no notice.
        if let Err(error) = self.host.hypervisor.resume(&self.host.dir(self.vm.id)).await {
            tracing::warn!(vm = %self.vm.id, %error, "cannot tell whether an adopted machine runs");
        }
        self.serve_calls(History::Used);
        match self.reach(History::Used).await {
            Work::Done(Some(guest)) => {
                self.set_clock(&guest).await;
                Next::Run(guest)
            }
            Work::Done(None) => self.crashed("Its machine had ended when the manager started").await,
            Work::Deleted(reply) => Next::Remove(Some(reply)),
            Work::Leave => Next::Leave,
        }
    }

    /// Waits for a command while there is no machine.
    async fn rest(&mut self) -> Next {
        loop {
            let state = self.state();
            let command = tokio::select! {
                command = self.inbox.next() => command,
                () = expiry(&self.vm) => return self.expired().await,
            };
            match command {
                Some(Command::Start(reply)) if state == VmState::Stopped => match self.boot(None).await {
                    Work::Done(Ok(guest)) => {
                        self.record("vm.started", "VM started").await;
                        answer(Some(reply), Ok(()));
                        return Next::Run(guest);
                    }
                    Work::Done(Err(error)) => {
                        if let Err(error) = self.host.end_machine(self.vm.id).await {
                            return self.broke(error).await;
                        }
                        self.publish(|live| live.state = VmState::Stopped);
                        answer(Some(reply), Err(error));
                    }
                    Work::Deleted(deleter) => {
                        answer(Some(reply), Err(Error::conflict("The VM was deleted while it was started")));
                        return Next::Remove(Some(deleter));
                    }
                    Work::Leave => return Next::Leave,
                },
                Some(Command::Delete(reply)) => return Next::Remove(Some(reply)),
                Some(Command::SetSecrets(secrets, reply)) => {
                    let kept = self.keep_secrets(&secrets).await;
                    answer(Some(reply), kept);
                }
                Some(Command::SetNetwork(network, reply)) => {
                    let set = self.set_network(network).await;
                    answer(Some(reply), set);
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

    /// Boots the machine, publishing each state on the way.
    async fn boot(&mut self, pooled: Option<Box<Machine>>) -> Work<Result<GuestClient>> {
        self.advance(Event::Start);
        let (host, vm) = (Arc::clone(&self.host), Arc::clone(&self.vm));
        let settings = self.live.borrow().settings.clone();
        let start = async move { host.start(&vm, &settings, pooled).await };
        let started = match self.unless_deleted(Meanwhile::Refuse, start).await {
            Work::Done(Ok(started)) => started,
            Work::Done(Err(error)) => return Work::Done(Err(error)),
            Work::Deleted(reply) => return Work::Deleted(reply),
            Work::Leave => return Work::Leave,
        };
        if let Err(error) = self.written_down(&started).await {
            return Work::Done(Err(error));
        }
        let Started { guest, how, bridge } = started;
        metrics::started(how.from.as_str(), how.timings.total_ms, &how.timings.steps());
        self.publish(|live| {
            live.guest = Some(guest.clone());
            live.error = None;
            live.settings.bridge = bridge;
            live.settings.last_start = Some(how);
        });
        self.serve_calls(History::Fresh);
        self.advance(Event::Ready);
        Work::Done(Ok(guest))
    }

    /// From here on a manager that finds this VM keeps it.
    async fn written_down(&self, started: &Started) -> Result<()> {
        let id = self.vm.id.to_string();
        let hash = started.bridge.as_ref().map(BridgeToken::hash_hex);
        let (from, timings) = (started.how.from.as_str(), to_json(&started.how.timings));
        self.host.store.set_vm_started(&id, from, &timings, hash.as_deref()).await?;
        self.host.store.set_vm_state(&id, VmState::Running.as_str(), None).await?;
        Ok(())
    }

    /// Watches over a running machine until it is stopped, deleted or ends.
    async fn drive(&mut self, mut guest: GuestClient) -> Next {
        let host = Arc::clone(&self.host);
        let dir = host.dir(self.vm.id);
        let mut trim = interval(TRIM_EVERY);
        trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                    Some(Command::Stop(reply)) => return self.stop(guest, reply).await,
                    Some(Command::Delete(reply)) => return Next::Remove(Some(reply)),
                    Some(Command::SetSecrets(secrets, reply)) => {
                        let given = self.give_secrets(&secrets, &guest).await;
                        answer(Some(reply), given);
                    }
                    Some(Command::SyncPeers(reply)) => {
                        let links = Arc::clone(&self.live.borrow().settings.links);
                        if let Some(next) = self.sync_peers(links, &guest, reply).await {
                            return next;
                        }
                    }
                    Some(Command::SetNetwork(network, reply)) => {
                        let set = self.set_network(network).await;
                        answer(Some(reply), set);
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
                    match self.reach(History::Used).await {
                        Work::Done(Some(again)) => {
                            guest = again;
                            self.publish(|live| live.guest = Some(guest.clone()));
                        }
                        Work::Done(None) => return self.crashed("Its machine ended by itself").await,
                        Work::Deleted(reply) => return Next::Remove(Some(reply)),
                        Work::Leave => return Next::Leave,
                    }
                }
                _ = trim.tick() => host.hypervisor.trim_logs(&dir),
                action = idleness(&self.vm, &self.uses) => match action {
                    IdleAction::Pause => {
                        if let Some(next) = self.pause(&guest, None).await {
                            return next;
                        }
                    }
                    IdleAction::Delete => return self.expired().await,
                },
                () = expiry(&self.vm) => return self.expired().await,
            }
        }
    }

    /// Connects to the agent of a machine that runs; `None` when the machine has ended.
    async fn reach(&mut self, mut history: History) -> Work<Option<GuestClient>> {
        let (host, id) = (Arc::clone(&self.host), self.vm.id);
        self.unless_deleted(Meanwhile::Defer, async move {
            let dir = host.dir(id);
            while host.hypervisor.is_running(&dir).await {
                match GuestClient::connect(&*host.hypervisor, &dir, history, RECONNECT_LIMIT).await {
                    Ok(guest) => return Some(guest),
                    Err(error) => tracing::warn!(vm = %id, %error, "cannot reach a running VM's agent yet"),
                }
                history = History::Used;
                sleep(RECONNECT_PAUSE).await;
            }
            None
        })
        .await
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
                Some(command) if meanwhile == Meanwhile::Defer => self.inbox.deferred.push_back(command),
                Some(command) => refuse(command.into_reply(), self.state()),
                None => return Work::Leave,
            }
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

/// Returns when the VM has lived as long as it may; never if it may live on.
async fn expiry(vm: &VmRecord) {
    let Some(at) = vm.expires_at() else { return std::future::pending().await };
    let left = u64::try_from(at.saturating_sub(clock::now_ms())).unwrap_or(0);
    sleep_until(Instant::now() + Duration::from_millis(left)).await;
}

/// Returns when nobody has used the VM for as long as it is to wait for that; never if it waits for ever.
async fn idleness(vm: &VmRecord, uses: &Uses) -> IdleAction {
    let Some(idle) = vm.spec.idle else { return std::future::pending().await };
    uses.idle(idle.after).await;
    idle.action
}

fn refuse(reply: Reply, state: VmState) {
    answer(Some(reply), Err(Error::conflict(format!("VM is {}", state.as_str()))));
}

/// What a client learns of a failure that left the VM in state ERROR.
fn unfinished() -> Error {
    Error::internal("a VM is in state ERROR now", "see the error before")
}

/// Whoever asked may have gone meanwhile.
fn answer(reply: Option<Reply>, result: Result<()>) {
    if let Some(reply) = reply {
        let _ = reply.send(result);
    }
}

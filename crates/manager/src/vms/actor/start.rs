//! How a VM comes to run: it is created, started, or taken up as an earlier manager left it.

use std::sync::Arc;
use std::time::Duration;

use rds_protocol::link::History;
use rds_vmm::guest::GuestClient;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument as _;

use super::ending::SYNC_LIMIT;
use super::{Actor, Care, Command, Meanwhile, Next, Reply, Work, expiry};
use crate::error::{Chain, Error, Result};
use crate::metrics;
use crate::peers::token::BridgeToken;
use crate::pool::Machine;
use crate::vms::copies::go_on;
use crate::vms::provision::Started;
use crate::vms::row::to_json;
use crate::vms::state::{Event, VmState};

/// How long one attempt to reach a running guest's agent again may take.
const RECONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Between two attempts to reach an agent whose machine runs.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Between two attempts to give an agent that is connected its secrets.
const SECRETS_PAUSE: Duration = Duration::from_secs(1);

impl Actor {
    pub(super) async fn create(&mut self, reply: Reply, pooled: Option<Box<Machine>>) -> Next {
        match self.boot(pooled, &reply).await {
            Work::Done(Ok(guest)) => {
                self.record("vm.created", "VM created").await;
                reply.answer(Ok(()));
                Next::Run(guest)
            }
            Work::Done(Err(error)) => self.not_made(reply, error).await,
            Work::Deleted(deleter) => deleted_meanwhile(reply, deleter),
            Work::Leave => Next::Leave,
        }
    }

    /// The same for one of several that are all made, or none. Who asked is told when it is up. It runs once `all` says that
    /// all of them do, which is written down by then; until then a manager that starts removes it.
    pub(super) async fn create_with_others(&mut self, reply: Reply, mut all: watch::Receiver<bool>) -> Next {
        let started = match self.bring_up(None, &reply).await {
            Work::Done(Ok(started)) => started,
            Work::Done(Err(error)) => return self.not_made(reply, error).await,
            Work::Deleted(deleter) => return deleted_meanwhile(reply, deleter),
            Work::Leave => return Next::Leave,
        };
        reply.answer(Ok(()));
        let run = async move { all.wait_for(|all| *all).await.is_ok() };
        match self.unless_deleted(Meanwhile::Refuse, run).await {
            Work::Done(true) => {
                let guest = self.runs(started);
                self.record("vm.created", "VM created").await;
                Next::Run(guest)
            }
            // Nobody is there any more who would say so.
            Work::Done(false) => Next::Remove(None),
            Work::Deleted(deleter) => Next::Remove(Some(deleter)),
            Work::Leave => Next::Leave,
        }
    }

    /// The answer comes after the removal: whoever is told that a create failed finds nothing left of it.
    async fn not_made(&mut self, reply: Reply, error: Error) -> Next {
        let removed = self.remove_half_made().await;
        reply.answer(Err(error));
        match removed {
            Ok(()) => Next::Leave,
            // What is left can be seen, and removed by whoever sees it.
            Err(remains) => self.broke(remains).await,
        }
    }

    /// Starts a stopped VM; `None` if it stays stopped.
    pub(super) async fn start(&mut self, reply: Reply) -> Option<Next> {
        // With another state written down, a manager that starts meanwhile would take a half-started machine for one that runs.
        if self.owed
            && let Err(error) = self.write_stopped().await
        {
            reply.answer(Err(error));
            return None;
        }
        match self.boot(None, &reply).await {
            Work::Done(Ok(guest)) => {
                self.record("vm.started", "VM started").await;
                reply.answer(Ok(()));
                Some(Next::Run(guest))
            }
            Work::Done(Err(error)) => {
                let ended = self.host.end_machine(self.vm.id).await;
                if ended.is_ok() {
                    self.publish(|live| live.state = VmState::Stopped);
                }
                reply.answer(Err(error));
                match ended {
                    Ok(()) => None,
                    Err(remains) => Some(self.broke(remains).await),
                }
            }
            Work::Deleted(deleter) => {
                reply.answer(Err(Error::conflict("The VM was deleted while it was started")));
                Some(Next::Remove(Some(deleter)))
            }
            Work::Leave => Some(Next::Leave),
        }
    }

    /// Takes up a machine that an earlier manager left running.
    pub(super) async fn adopt(&mut self) -> Next {
        self.publish(|live| live.state = VmState::Running);
        // It stands still if that manager was killed while it paused it; one that runs takes no notice.
        if let Err(error) = self.host.hypervisor.resume(&self.host.dir(self.vm.id)).await {
            tracing::warn!(vm = %self.vm.id, %error, "cannot tell whether an adopted machine runs");
        }
        self.serve_calls(History::Used);
        match self.reach(None, History::Used, "Its machine had ended when the manager started").await {
            Ok(guest) => {
                // That manager may have been killed while it copied the VM, and its programs be held.
                if let Err(error) = go_on(&guest).await {
                    tracing::warn!(vm = %self.vm.id, %error, "cannot have an adopted VM go on with the right time");
                }
                Next::Run(guest)
            }
            Err(next) => next,
        }
    }

    /// Boots the machine for `asker`, publishing each state on the way.
    async fn boot(&mut self, pooled: Option<Box<Machine>>, asker: &Reply) -> Work<Result<GuestClient>> {
        let started = match self.bring_up(pooled, asker).await {
            Work::Done(Ok(started)) => started,
            Work::Done(Err(error)) => return Work::Done(Err(error)),
            Work::Deleted(reply) => return Work::Deleted(reply),
            Work::Leave => return Work::Leave,
        };
        // From here on a manager that finds this VM keeps it.
        let id = self.vm.id.to_string();
        let written = self.host.store.set_vm_state(&id, VmState::Running.as_str(), None).await;
        Work::Done(written.map(|()| self.runs(started)))
    }

    /// Brings the machine up, and writes down how it came up.
    async fn bring_up(&mut self, pooled: Option<Box<Machine>>, asker: &Reply) -> Work<Result<Started>> {
        self.advance(Event::Start);
        let (host, vm) = (Arc::clone(&self.host), Arc::clone(&self.vm));
        let settings = self.live.borrow().settings.clone();
        let start = async move { host.start(&vm, &settings, pooled).await }.instrument(asker.span.clone());
        match self.unless_deleted(Meanwhile::Refuse, start).await {
            Work::Done(Ok(started)) => Work::Done(self.write_start(&started).await.map(|()| started)),
            other => other,
        }
    }

    async fn write_start(&self, started: &Started) -> Result<()> {
        let hash = started.bridge.as_ref().map(BridgeToken::hash_hex);
        let (id, from) = (self.vm.id.to_string(), started.how.from.as_str());
        let timings = to_json(&started.how.timings);
        self.host.store.set_vm_started(&id, from, &timings, started.how.fits.as_deref(), hash.as_deref()).await
    }

    /// Publishes that the VM runs.
    fn runs(&mut self, started: Started) -> GuestClient {
        let Started { guest, how, bridge } = started;
        metrics::started(how.from.as_str(), how.timings.total_ms, &how.timings.steps());
        self.publish(|live| {
            live.guest = Some(guest.clone());
            live.error = None;
            live.settings.bridge = bridge;
            live.settings.secrets.due = false;
            live.settings.secrets.held = live.settings.secrets.newest.bytes.is_some();
            live.settings.last_start = Some(how);
        });
        self.serve_calls(History::Fresh);
        self.advance(Event::Ready);
        guest
    }

    /// Connects to the agent of a machine that runs, unless `known` is a connection to it that still holds, and gives it its
    /// newest secrets if they are due; or gives what comes next instead. `ended` says why if the machine does not run any
    /// more. What else is asked of the VM waits meanwhile, if it makes sense, a stop no longer than for the last sync of a guest;
    /// but what the VM may reach is changed at once, since an agent that does not answer may be hostile.
    pub(super) async fn reach(
        &mut self,
        mut known: Option<GuestClient>,
        mut history: History,
        ended: &str,
    ) -> std::result::Result<GuestClient, Next> {
        let (host, id) = (Arc::clone(&self.host), self.vm.id);
        let secrets = self.live.borrow().settings.secrets.clone();
        let due = secrets.due.then_some(secrets.newest);
        let connected = async move {
            let dir = host.dir(id);
            while host.hypervisor.is_running(&dir).await {
                let guest = match known.take().filter(|guest| !guest.is_closed()) {
                    Some(guest) => Ok(guest),
                    None => GuestClient::connect(&*host.hypervisor, &dir, history, RECONNECT_LIMIT).await,
                };
                history = History::Used;
                match (guest, &due) {
                    (Ok(guest), None) => return Some(guest),
                    (Ok(guest), Some(sealed)) => match host.give_secrets(id, sealed, &guest).await {
                        Ok(()) => return Some(guest),
                        Err(error) => {
                            tracing::warn!(vm = %id, error = %Chain(&error), "a VM's agent does not have its new secrets yet");
                            let _ = timeout(SECRETS_PAUSE, guest.closed()).await;
                            known = Some(guest);
                        }
                    },
                    (Err(error), _) => tracing::warn!(vm = %id, %error, "cannot reach a running VM's agent yet"),
                }
                sleep(RECONNECT_PAUSE).await;
            }
            None
        };
        tokio::pin!(connected);
        let (patience, mut care) = (Instant::now() + SYNC_LIMIT, Care::new());
        loop {
            let command = tokio::select! {
                connected = &mut connected => return match connected {
                    Some(guest) => {
                        self.confirm_secrets().await;
                        Ok(guest)
                    }
                    None => Err(self.crashed(ended).await),
                },
                command = self.inbox.commands.recv() => command,
                () = sleep_until(patience), if self.inbox.is_to_stop() => match self.inbox.take_stop() {
                    Some(reply) => return Err(self.stop(None, reply).await),
                    None => continue,
                },
                () = care.due() => {
                    self.take_care(&mut care).await;
                    continue;
                }
                () = expiry(self.ends) => return Err(self.expired().await),
            };
            match command {
                Some(Command::Delete(reply)) => return Err(Next::Remove(Some(reply))),
                Some(Command::PatchNetwork(patch, reply)) => {
                    let set = self.patch_network(patch).await;
                    reply.answer(set);
                }
                Some(command) => self.defer(command),
                None => return Err(Next::Leave),
            }
        }
    }
}

fn deleted_meanwhile(reply: Reply, deleter: Reply) -> Next {
    reply.answer(Err(Error::conflict("The VM was deleted while it was created")));
    Next::Remove(Some(deleter))
}

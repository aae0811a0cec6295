//! Pausing: the machine stands still in memory, and whoever needs the VM wakes it.
//!
//! Nothing is under way when a machine is stopped, in either direction: a call that is cut off could not be made good.

use std::sync::Arc;

use rds_protocol::link::History;
use rds_vmm::VmId;
use rds_vmm::guest::GuestClient;
use rds_vmm::hypervisor::HypervisorError;

use super::{Actor, Care, Command, Meanwhile, Next, Reply, Work, answer, expiry, refuse};
use crate::error::{Chain, Error, Result};
use crate::vms::guest_clock;
use crate::vms::host::Host;
use crate::vms::state::{Event, VmState};

impl Actor {
    /// Pauses a running VM, or says why not; `None` if it goes on running.
    pub(super) async fn pause(&mut self, guest: &GuestClient, reply: Option<Reply>) -> Option<Next> {
        if let Err(calls) = self.uses.shut() {
            answer(reply, Err(in_use(calls)));
            return None;
        }
        if let Err(error) = self.halt().await {
            self.uses.open();
            answer(reply, Err(error));
            return None;
        }
        self.calls = None;
        self.publish(|live| live.guest = None);
        guest.close().await;
        self.advance(Event::Pause);
        self.record("vm.paused", "VM paused").await;
        answer(reply, Ok(()));
        Some(Next::Sleep)
    }

    /// Stops the machine and writes that down. After an error it runs.
    async fn halt(&self) -> Result<()> {
        let (dir, id) = (self.host.dir(self.vm.id), self.vm.id.to_string());
        let stopped = self.host.hypervisor.pause(&dir).await;
        let stopped = stopped.map_err(|error| Error::internal(format!("cannot pause VM {id}"), error));
        let done = match (stopped, self.uses.calls()) {
            // Its code may have called a peer before the machine stopped.
            (Ok(()), calls) if calls > 0 => Err(in_use(calls)),
            (Ok(()), _) => self.host.store.set_vm_state(&id, VmState::Paused.as_str(), None).await,
            (stopped, _) => stopped,
        };
        if done.is_err()
            && let Err(error) = self.host.hypervisor.resume(&dir).await
        {
            tracing::error!(vm = id, error = %Chain(&error), "a VM that could not be paused does not go on");
        }
        done
    }

    /// Takes up a machine that an earlier manager left paused.
    pub(super) async fn adopt_paused(&mut self) -> Next {
        self.publish(|live| live.state = VmState::Paused);
        // Nobody can be in: no handler knows of the VM yet.
        let _ = self.uses.shut();
        // It runs if that manager was killed while it resumed it.
        match self.host.hypervisor.pause(&self.host.dir(self.vm.id)).await {
            Ok(()) => Next::Sleep,
            Err(error) => {
                tracing::error!(vm = %self.vm.id, %error, "cannot pause an adopted VM");
                self.crashed("Its machine could not be paused when the manager started").await
            }
        }
    }

    /// Waits while the VM is paused.
    pub(super) async fn sleep(&mut self) -> Next {
        let host = Arc::clone(&self.host);
        let (dir, mut care) = (host.dir(self.vm.id), Care::new());
        loop {
            let command = tokio::select! {
                command = self.inbox.next() => command,
                // A monitor that was taken over writes to its logs all the same.
                () = care.due() => {
                    host.look_after(self.vm.id);
                    continue;
                }
                () = host.hypervisor.wait(&dir) => return self.crashed("Its machine ended by itself").await,
                () = expiry(self.ends) => return self.expired().await,
            };
            match command {
                Some(Command::Start(reply) | Command::Pause(reply)) => refuse(reply, VmState::Paused),
                Some(Command::Delete(reply)) => return Next::Remove(Some(reply)),
                Some(Command::PatchNetwork(patch, reply)) => {
                    let set = self.patch_network(patch).await;
                    reply.answer(set);
                }
                // All else needs the guest: a stop, too, for what it has not written to its disk yet.
                Some(command) => return self.resume(command).await,
                None => return Next::Leave,
            }
        }
    }

    /// Has the machine go on for a command, which is carried out next. If it does not, it sleeps on, and the next command tries
    /// again.
    async fn resume(&mut self, cause: Command) -> Next {
        let resumed = wake(Arc::clone(&self.host), self.vm.id);
        let resumed = match self.unless_deleted(Meanwhile::Defer, resumed).await {
            Work::Done(resumed) => resumed,
            Work::Deleted(deleter) => {
                cause.into_reply().answer(Err(Error::conflict("The VM was deleted while it was resumed")));
                return Next::Remove(Some(deleter));
            }
            Work::Leave => return Next::Leave,
        };
        if let Err(error) = resumed {
            if self.host.hypervisor.is_running(&self.host.dir(self.vm.id)).await {
                // If it waited, it would wake the VM again and again.
                cause.into_reply().answer(Err(Error::internal("cannot resume a VM", error)));
                return Next::Sleep;
            }
            self.inbox.deferred.push_front(cause);
            return self.crashed("Its machine ended while it was paused").await;
        }
        let reply = match cause {
            Command::Resume(reply) => Some(reply),
            other => {
                self.inbox.deferred.push_front(other);
                None
            }
        };
        self.serve_calls(History::Closed);
        let guest = match self.reach(None, History::Closed, "Its machine ended by itself").await {
            Ok(guest) => guest,
            Err(next) => {
                answer(reply, Err(Error::conflict("The VM ended, or was deleted, while it was resumed")));
                return next;
            }
        };
        self.set_clock(&guest).await;
        let id = self.vm.id.to_string();
        if let Err(error) = self.host.store.set_vm_state(&id, VmState::Running.as_str(), None).await {
            // A manager that starts now pauses it again; whoever uses it then wakes it.
            tracing::error!(vm = id, error = %Chain(&error), "cannot write down that a VM goes on");
        }
        self.publish(|live| live.guest = Some(guest.clone()));
        self.advance(Event::Resume);
        self.uses.open();
        self.record("vm.resumed", "VM resumed").await;
        answer(reply, Ok(()));
        Next::Run(guest)
    }

    /// Sets the clock of a guest that stood still, before anything else is asked of it.
    async fn set_clock(&self, guest: &GuestClient) {
        if let Err(error) = guest_clock::correct(guest).await {
            tracing::warn!(vm = %self.vm.id, %error, "cannot set the clock of a VM that goes on");
        }
    }
}

/// Has a paused machine go on. After an error it stands still.
async fn wake(host: Arc<Host>, id: VmId) -> std::result::Result<(), HypervisorError> {
    let dir = host.dir(id);
    let resumed = host.hypervisor.resume(&dir).await;
    // A monitor that did not answer in time may have it go on later.
    if resumed.is_err()
        && let Err(error) = host.hypervisor.pause(&dir).await
    {
        tracing::warn!(vm = %id, %error, "cannot tell whether a machine that was not resumed stands still");
    }
    resumed
}

fn in_use(calls: u32) -> Error {
    Error::Conflict(format!("Calls into the VM or out of it are under way ({calls}): wait for them, or end them"))
}

//! Which VMs there are, and what their tasks publish. Shared by the services that need to find a VM.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rds_vmm::VmId;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::actor::{Command, Reply};
use super::failure::{no_such_vm, unreachable_agent};
use super::record::{Live, VmRecord};
use super::state::VmState;
use super::uses::{Lease, Use, Uses};
use crate::error::{Error, Result};

/// How long a call waits for the agent of a running VM that is being reached again, after a restart of the manager.
const REACH_LIMIT: Duration = Duration::from_secs(30);

/// The address of a VM's task, and what it publishes.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(super) vm: Arc<VmRecord>,
    pub(crate) live: watch::Receiver<Live>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) uses: Arc<Uses>,
    /// Held by whoever has the VM's disk frozen.
    pub(super) freezing: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    /// Whether its deletion was accepted.
    pub(super) fn is_deleted(&self) -> bool {
        self.live.borrow().deleted
    }
}

/// All VMs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<HashMap<VmId, Handle>>>);

impl Directory {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<VmId, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A VM that is there.
    pub(crate) fn handle(&self, id: VmId) -> Result<Handle> {
        let handle = self.lock().get(&id).cloned();
        handle.filter(|handle| !handle.is_deleted()).ok_or_else(no_such_vm)
    }

    /// A VM that is started, paused or not, about which something holds.
    pub(crate) fn find(&self, holds: impl Fn(&Live) -> bool) -> Option<VmId> {
        let found = |(id, handle): (&VmId, &Handle)| {
            let live = handle.live.borrow();
            let started = matches!(live.state, VmState::Running | VmState::Paused);
            (!live.deleted && started && holds(&live)).then_some(*id)
        };
        self.lock().iter().find_map(found)
    }

    /// The state of a VM for people; one that is not there is deleted.
    pub(crate) fn state_name(&self, id: VmId) -> &'static str {
        self.handle(id).map_or("DELETED", |handle| handle.live.borrow().state.as_str())
    }

    /// The connection to the agent of a running VM, for one call. A paused VM is woken.
    pub(crate) async fn guest(&self, id: VmId) -> Result<Lease> {
        let reached = timeout(REACH_LIMIT, self.handle(id)?.reach()).await;
        reached.unwrap_or_else(|_| Err(unreachable_agent()))
    }

    /// A call out of a VM is under way until this is dropped; `None` if there is no such VM.
    pub(crate) fn call_out(&self, id: VmId) -> Option<Use> {
        Some(self.handle(id).ok()?.uses.leave())
    }
}

impl Handle {
    async fn reach(&self) -> Result<Lease> {
        loop {
            // First of all: nobody can pause the VM from here on.
            let Some(in_use) = self.uses.enter() else {
                self.wake().await?;
                continue;
            };
            let mut live = self.live.clone();
            let can_be_asked = |live: &Live| live.guest.as_ref().is_some_and(|guest| !guest.is_closed());
            let reached = live.wait_for(|live| can_be_asked(live) || live.state != VmState::Running).await;
            let live = reached.map_err(|_| no_such_vm())?;
            return match (&live.guest, live.state) {
                (Some(guest), VmState::Running) if !live.deleted => Ok(Lease { guest: guest.clone(), _in_use: in_use }),
                (None, VmState::Running) => Err(unreachable_agent()),
                (_, state) => Err(Error::conflict(format!("VM is {}, not RUNNING", state.as_str()))),
            };
        }
    }

    /// Has a paused VM go on.
    async fn wake(&self) -> Result<()> {
        let (reply, done) = Reply::channel();
        self.commands.send(Command::Resume(reply)).await.map_err(|_| no_such_vm())?;
        match done.await.map_err(|_| no_such_vm())? {
            // Somebody else was first.
            Err(Error::Conflict(_)) => Ok(()),
            woken => woken,
        }
    }
}

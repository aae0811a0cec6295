//! How a VM's machine comes to its end, and what is left of the VM then.

use std::time::Duration;

use rds_vmm::GuestError;
use rds_vmm::guest::GuestClient;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::{Actor, Next, Reply, unfinished};
use crate::error::{Chain, Error, Result};
use crate::vms::row::{DELETED, HALF_MADE};
use crate::vms::state::{Event, VmState};

/// How long a guest may take to write its disk's cache down when it is stopped.
pub(super) const SYNC_LIMIT: Duration = Duration::from_secs(30);

impl Actor {
    /// Stops the VM. A guest that does not answer must not be unstoppable; its file system has a journal.
    pub(super) async fn stop(&mut self, guest: Option<GuestClient>, reply: Reply) -> Next {
        if self.state() == VmState::Paused {
            // Its machine goes on, only its agent does not answer.
            self.advance(Event::Resume);
        }
        self.advance(Event::Stop);
        self.withdraw();
        let synced = match &guest {
            Some(guest) => {
                let sync = async {
                    self.host.lift_disk_limits(&self.vm).await;
                    guest.sync(SYNC_LIMIT).await
                };
                let sync = sync.instrument(reply.span.clone());
                timeout(SYNC_LIMIT, sync).await.unwrap_or(Err(GuestError::Timeout))
            }
            None => Err(GuestError::Timeout),
        };
        if let Err(error) = synced {
            tracing::warn!(vm = %self.vm.id, %error, "a VM is stopped without a last sync");
        }
        drop(guest);
        if let Err(error) = self.host.end_machine(self.vm.id).await {
            reply.answer(Err(unfinished()));
            return self.broke(error).await;
        }
        // It is stopped, whether that can be written down or not.
        let _ = self.write_stopped().await;
        self.advance(Event::Ended);
        self.record("vm.stopped", "VM stopped").await;
        reply.answer(Ok(()));
        Next::Rest
    }

    /// Writes down that the VM has no machine, and why if nobody asked. What cannot be written now is owed; a manager that
    /// starts meanwhile finds a VM that runs without a machine, and takes it for stopped.
    pub(super) async fn write_stopped(&mut self) -> Result<()> {
        let (id, why) = (self.vm.id.to_string(), self.live.borrow().error.clone());
        let written = self.host.store.set_vm_state(&id, VmState::Stopped.as_str(), why.as_deref()).await;
        if let Err(error) = &written {
            tracing::warn!(vm = id, error = %Chain(error), "cannot write down that a VM is stopped");
        }
        self.owed = written.is_err();
        written
    }

    /// The machine is gone though nobody asked. The disk is there, so the VM can be started again.
    pub(super) async fn crashed(&mut self, why: &str) -> Next {
        let words = self.host.hypervisor.last_words(&self.host.dir(self.vm.id));
        tracing::warn!(vm = %self.vm.id, why, monitor = ?words, "a VM's machine has ended");
        if let Err(error) = self.host.end_machine(self.vm.id).await {
            return self.broke(error).await;
        }
        self.withdraw();
        self.publish(|live| live.error = Some(why.to_owned()));
        let _ = self.write_stopped().await;
        self.advance(Event::Ended);
        self.record("vm.crashed", why).await;
        Next::Rest
    }

    pub(super) async fn broke(&mut self, why: Error) -> Next {
        tracing::error!(vm = %self.vm.id, error = %Chain(&why), "a VM is broken");
        // The cause may name paths of the host: it is for the log, and clients learn that there is one.
        let shown = "The VM's files or machine are not as they should be; the server's log says why";
        let id = self.vm.id.to_string();
        if let Err(error) = self.host.store.set_vm_state(&id, VmState::Error.as_str(), Some(shown)).await {
            tracing::error!(vm = %id, error = %Chain(&error), "cannot write down that a VM is broken");
        }
        self.owed = false;
        self.withdraw();
        self.publish(|live| {
            live.deleted = false;
            live.error = Some(shown.to_owned());
        });
        self.advance(Event::Broke);
        Next::Rest
    }

    pub(super) async fn expired(&mut self) -> Next {
        tracing::info!(vm = %self.vm.id, "a VM is removed, as it was asked for when it was made");
        Next::Remove(None)
    }

    /// Removes every trace, which an event tells of. It is written down first, so that a manager killed in between finishes it. If
    /// that fails, its machine must not run on all the same; and for want of room, a deletion is what makes some.
    pub(super) async fn remove(&mut self) -> Result<()> {
        let id = self.clear(DELETED).await?;
        self.host.activity.record_deleted_vm(&id).await
    }

    /// The same for a VM that was never told of.
    pub(super) async fn remove_half_made(&mut self) -> Result<()> {
        let id = self.clear(HALF_MADE).await?;
        self.host.store.delete_vm(&id).await.map(drop)
    }

    /// Removes what there is of the VM but its row, which has this state from now on. Gives its id.
    async fn clear(&mut self, state: &str) -> Result<String> {
        self.withdraw();
        self.publish(|live| live.deleted = true);
        let id = self.vm.id.to_string();
        if let Err(error) = self.host.store.set_vm_state(&id, state, None).await {
            tracing::warn!(vm = id, error = %Chain(&error), "a VM is removed without that being written down first");
        }
        self.host.teardown(self.vm.id).await?;
        Ok(id)
    }
}

//! From parts to a machine whose agent has answered: restored from a seed, or booted.

use std::time::{Duration, Instant};

use rds_protocol::link::History;
use rds_vmm::guest::GuestClient;
use rds_vmm::hypervisor::MAX_BOOTS;
use rds_vmm::{MachineSpec, VmId};

use super::fault::Step;
use super::host::Host;
use super::last_start::{Lap, Timings};
use super::turns::Turn;
use crate::error::{Chain, Error, Result};
use crate::images::ImageFiles;
use crate::seeds::{Seed, Size};

/// How long a guest may take from its first instruction to its agent's first answer. Emulated, 2 s are usual; a host
/// that starts 50 of them at once on two cores needs most of this.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// How long a guest that was restored may take to its agent's first answer. 15 ms are usual, emulated; 50 at once on two
/// cores need some seconds.
pub(super) const RESTORE_LIMIT: Duration = Duration::from_secs(30);

impl Host {
    /// Brings the machine to its agent's first answer: from the seed that it gives, or by booting it if there is none that is
    /// sound. Want of room says nothing of a seed, and a boot would fail of it, too.
    #[tracing::instrument(level = "debug", name = "come_up", skip_all)]
    pub(super) async fn come_up(
        &self,
        spec: &MachineSpec,
        image: &ImageFiles,
        turn: &mut Option<Turn<'_>>,
        timings: &mut Timings,
    ) -> Result<(GuestClient, Option<Seed>)> {
        if let Some(seed) = self.seeds.find(image, &spec.initramfs, size(spec)).await {
            match self.restore(spec, image, &seed, timings).await {
                Ok(guest) => return Ok((guest, Some(seed))),
                Err(error @ Error::Full(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(vm = %spec.id, error = %Chain(&error), "a VM is booted, since its seed is no good");
                    self.kill_machine(spec.id).await?;
                    self.seeds.discard(&seed);
                }
            }
        }
        Ok((self.come_up_by_boot(spec, turn, timings).await?, None))
    }

    /// The same by a boot, which takes no turn: it may last long.
    pub(super) async fn come_up_by_boot(
        &self,
        spec: &MachineSpec,
        turn: &mut Option<Turn<'_>>,
        timings: &mut Timings,
    ) -> Result<GuestClient> {
        drop(turn.take());
        timings.restore_ms = 0.0;
        let mut lap = Lap::new();
        let (begun, mut boots) = (Instant::now(), 0..MAX_BOOTS);
        loop {
            boots.next();
            let booted = self.hypervisor.boot(spec).await;
            booted.map_err(|error| Error::internal(format!("cannot boot VM {}", spec.id), error))?;
            timings.boot_ms = lap.take();
            self.faults.at(Step::Connect)?;
            let left = BOOT_LIMIT.saturating_sub(begun.elapsed());
            let answer = self.first_answer(spec.id, History::Fresh, left).await;
            let may_boot = !boots.is_empty() && begun.elapsed() < BOOT_LIMIT;
            match answer {
                Err(_) if may_boot && self.hypervisor.was_mistimed(&self.dir(spec.id)) => {
                    tracing::warn!(vm = %spec.id, "a VM is booted again, since its kernel measured its timer wrong");
                    self.kill_machine(spec.id).await?;
                }
                answer => {
                    timings.agent_ms = lap.take();
                    return answer;
                }
            }
        }
    }

    #[tracing::instrument(level = "debug", name = "restore", skip_all)]
    async fn restore(
        &self,
        spec: &MachineSpec,
        image: &ImageFiles,
        seed: &Seed,
        timings: &mut Timings,
    ) -> Result<GuestClient> {
        let mut lap = Lap::new();
        let restored = self.hypervisor.restore(spec, &seed.dir).await;
        restored.map_err(|error| Error::internal("cannot restore a machine", error))?;
        // Only seeds are started from again and again.
        self.hypervisor.keep(&seed.dir);
        timings.restore_ms = lap.take();
        self.faults.at(Step::Connect)?;
        let guest = self.first_answer(spec.id, History::Fresh, RESTORE_LIMIT).await?;
        // Files that are given in place may be others meanwhile, which the guest's memory does not fit.
        if !self.seeds.is_of(seed, image, &spec.initramfs) {
            return Err(Error::internal("cannot restore a machine", "its image changed meanwhile"));
        }
        timings.agent_ms = lap.take();
        Ok(guest)
    }

    /// Waits for the agent, but not for one whose machine has ended.
    pub(super) async fn first_answer(&self, id: VmId, history: History, limit: Duration) -> Result<GuestClient> {
        let dir = self.dir(id);
        let connect = GuestClient::connect(&*self.hypervisor, &dir, history, limit);
        tokio::select! {
            guest = connect => guest.map_err(|error| self.failed_guest(id, &error)),
            () = self.hypervisor.wait(&dir) => Err(self.failed_guest(id, &"its machine ended before its agent answered")),
        }
    }
}

pub(super) fn size(spec: &MachineSpec) -> Size {
    Size { vcpus: spec.vcpus, mem_mib: spec.mem_mib }
}

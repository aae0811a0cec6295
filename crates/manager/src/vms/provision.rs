//! From a record to a VM that runs: the steps of a start, in their order.

use std::fs::File;
use std::time::{Duration, Instant};

use rds_image::disk;
use rds_protocol::guest::Configure;
use rds_vmm::guest::GuestClient;
use rds_vmm::{DiskLimits, HypervisorError, MemoryLimit};

use super::fault::Step;
use super::guest_clock;
use super::host::Host;
use super::last_start::{Lap, LastStart, StartedFrom, Timings, milliseconds};
use super::machine::size;
use super::parts::Filling;
use super::record::{Settings, VmRecord};
use crate::error::{Chain, Error, Result};
use crate::images::ImageFiles;
use crate::peers::token::BridgeToken;
use crate::pool::{Machine, record};
use crate::secrets::SecretEnv;

/// How long the agent may take to become one VM.
const CONFIGURE_LIMIT: Duration = Duration::from_secs(60);

/// A VM that has come up.
pub(super) struct Started {
    pub guest: GuestClient,
    pub how: LastStart,
    /// The token of this start, if the VM is linked to providers.
    pub bridge: Option<BridgeToken>,
}

impl Host {
    /// Makes what the VM lacks, starts it from the pooled machine or a seed or boots it, tells the guest who it is and puts its peers in place.
    ///
    /// May be dropped at any point; like after an error, [`Self::end_machine`] or [`Self::teardown`] must follow then.
    #[tracing::instrument(level = "debug", name = "start", skip_all, fields(vm = %vm.id))]
    pub(super) async fn start(
        &self,
        vm: &VmRecord,
        settings: &Settings,
        pooled: Option<Box<Machine>>,
    ) -> Result<Started> {
        let _foreground = self.seeds.foreground();
        let begun = Instant::now();
        // What the providers have to say does not depend on the guest: both take their time at once.
        let (up, peers) = tokio::try_join!(self.bring_up(vm, settings, pooled), self.peers.prepare(&settings.links))?;
        let (guest, mut how) = up;
        self.limit_disk(vm, how.from).await?;
        self.limit_memory(vm, how.from).await?;
        let mut lap = Lap::new();
        let (linked, token) = (!settings.links.is_empty(), BridgeToken::new());
        // Without links there is nothing to take away: a guest that was nobody's has none, nor has a VM that may be copied.
        if linked {
            self.peers.install(&guest, peers, &token).await?;
        }
        how.timings.peers_ms = lap.take();
        self.faults.at(Step::Ready)?;
        how.timings.total_ms = milliseconds(begun);
        Ok(Started { guest, how, bridge: linked.then_some(token) })
    }

    async fn bring_up(
        &self,
        vm: &VmRecord,
        settings: &Settings,
        pooled: Option<Box<Machine>>,
    ) -> Result<(GuestClient, LastStart)> {
        let mut lap = Lap::new();
        let image = self.images.resolve(Some(&vm.image_id)).await?;
        // Looked at before they are opened: files that are given in place may be others at any time.
        let fits = self.seeds.fits(&image)?;
        // Only its first start makes a VM a copy.
        let copied = vm.copied_from().filter(|_| settings.last_start.is_none());
        if copied.is_some_and(|base| base.fits.as_ref() != Some(&fits)) {
            return Err(Error::conflict("The image got other files while a VM's memory was copied"));
        }
        // No machine is started for secrets that cannot be opened. They are not kept while one comes up.
        drop(settings.secrets.newest.open(self.sealer.as_deref(), vm.id)?);
        let mut turn = Some(self.turns.take().await);
        let mut timings = Timings { queue_ms: lap.take(), ..Timings::default() };
        if let Some(machine) = pooled {
            match self.hand_out(vm, settings, &image, *machine, &mut timings).await {
                Ok(guest) => return Ok((guest, LastStart { from: StartedFrom::Pool, timings, fits: Some(fits) })),
                Err(error) => {
                    tracing::warn!(vm = %vm.id, error = %Chain(&error), "a VM is made anew, since its pooled machine is no good");
                    self.teardown(vm.id).await?;
                }
            }
        }
        lap.take();
        let (spec, mut filling) = self.prepare(vm, &image).await?;
        timings.disk_ms = lap.take();

        self.open_network(vm, settings, &mut timings).await?;
        self.faults.at(Step::Boot)?;
        let (guest, seed) = match copied {
            Some(base) => {
                // It has its disk open.
                timings.disk_ms += filled(filling.take()).await?;
                (self.come_up_as_copy(&spec, &base.id, &mut timings).await?, None)
            }
            None => self.come_up(&spec, &image, &mut turn, &mut timings).await?,
        };
        let from = match (copied, &seed) {
            (Some(_), _) => StartedFrom::Snapshot,
            (None, Some(_)) => StartedFrom::Seed,
            (None, None) => StartedFrom::Boot,
        };
        timings.disk_ms += filled(filling).await?;
        let (guest, from) = match (self.identify(vm, settings, &guest, from, &mut timings).await, seed) {
            (Ok(()), _) => (guest, from),
            // What ails a machine from a seed may show only when something is asked of it.
            (Err(error), Some(seed)) => {
                tracing::warn!(vm = %vm.id, error = %Chain(&error), "a VM is booted, since its machine is no good");
                self.kill_machine(vm.id).await?;
                let guest = self.come_up_by_boot(&spec, &mut turn, &mut timings).await?;
                self.identify(vm, settings, &guest, StartedFrom::Boot, &mut timings).await?;
                // It was the seed, then: every VM would fail with it.
                self.seeds.discard(&seed);
                (guest, StartedFrom::Boot)
            }
            (Err(error), None) => return Err(error),
        };
        if from == StartedFrom::Boot {
            self.seeds.want(&image.id, size(&spec));
        }
        Ok((guest, LastStart { from, timings, fits: Some(fits) }))
    }

    /// Makes a machine of the pool the VM.
    #[tracing::instrument(level = "debug", name = "hand_out", skip_all)]
    async fn hand_out(
        &self,
        vm: &VmRecord,
        settings: &Settings,
        image: &ImageFiles,
        machine: Machine,
        timings: &mut Timings,
    ) -> Result<GuestClient> {
        let dir = self.dir(vm.id);
        let mut lap = Lap::new();
        if self.kind(image, machine.kind.size).await.as_ref() != Some(&machine.kind) {
            return Err(Error::internal("cannot take a machine out of the pool", "its image changed meanwhile"));
        }
        record::remove(&dir).map_err(|error| Error::internal("cannot take a machine out of the pool", error))?;
        self.faults.at(Step::Disk)?;
        if vm.base.is_some() || vm.spec.disk_bytes != self.storage.overlay_size_bytes {
            self.fill_disk(vm, |from, to, mode| disk::clone_into(from, to, mode).map(drop)).done().await?;
        } else {
            // Until now it had the size that all machines from seeds have at first.
            let cut = File::options().write(true).open(self.disk(vm.id));
            let cut = cut.and_then(|disk| disk.set_len(vm.spec.disk_bytes));
            cut.map_err(|error| Error::internal("cannot give a pooled machine's disk its size", error))?;
        }
        let told = self.hypervisor.disk_changed(&dir, vm.spec.disk_bytes).await;
        told.map_err(|error| Error::internal("cannot give a pooled machine its disk", error))?;
        timings.disk_ms = lap.take();
        self.open_network(vm, settings, timings).await?;
        self.identify(vm, settings, &machine.guest, StartedFrom::Pool, timings).await?;
        Ok(machine.guest)
    }

    /// Lets the VM have what it may. That comes before there is anything that could send.
    #[tracing::instrument(level = "debug", name = "network", skip_all)]
    async fn open_network(&self, vm: &VmRecord, settings: &Settings, timings: &mut Timings) -> Result<()> {
        self.faults.at(Step::Rules)?;
        let mut lap = Lap::new();
        self.egress.open(vm.id, &settings.network, vm.spec.limits.network_bytes_per_second).await?;
        timings.network_ms = lap.take();
        Ok(())
    }

    /// Has the VM use its disk no faster than it may, from before anything runs in it. What the agent has to do there to make
    /// the VM is done by then.
    async fn limit_disk(&self, vm: &VmRecord, from: StartedFrom) -> Result<()> {
        let limits = vm.spec.limits.disk();
        // A copy may come with those of the VM that it was.
        if limits == DiskLimits::default() && from != StartedFrom::Snapshot {
            return Ok(());
        }
        let limited = self.hypervisor.limit_disk(&self.dir(vm.id), limits).await;
        limited.map_err(|error| Error::internal(format!("cannot limit the disk of VM {}", vm.id), error))
    }

    /// Has the VM keep to the memory that it may keep.
    async fn limit_memory(&self, vm: &VmRecord, from: StartedFrom) -> Result<()> {
        let of_mib = vm.spec.mem_mib;
        let wish = vm.spec.limits.memory(of_mib);
        // A copy may come with the balloon of the VM that it was.
        if wish.is_none() && from != StartedFrom::Snapshot {
            return Ok(());
        }
        let limit = wish.unwrap_or(MemoryLimit { of_mib, kept_mib: of_mib });
        match self.hypervisor.limit_memory(&self.dir(vm.id), limit).await {
            Err(HypervisorError::NoBalloon) if wish.is_none() => Ok(()),
            Err(HypervisorError::NoBalloon) => {
                Err(Error::conflict("limits.memoryMb: the image's kernel has no driver for a balloon (virtio_balloon)"))
            }
            limited => {
                limited.map_err(|error| Error::internal(format!("cannot limit the memory of VM {}", vm.id), error))
            }
        }
    }

    /// Lets a VM that comes to its end write down what it has in memory, however slow it was.
    pub(super) async fn lift_disk_limits(&self, vm: &VmRecord) {
        if vm.spec.limits.disk() == DiskLimits::default() {
            return;
        }
        if let Err(error) = self.hypervisor.limit_disk(&self.dir(vm.id), DiskLimits::default()).await {
            tracing::warn!(vm = %vm.id, %error, "the last sync of a VM has to keep within the limits of its disk");
        }
    }

    /// Tells the guest who it is.
    #[tracing::instrument(level = "debug", name = "configure", skip_all)]
    async fn identify(
        &self,
        vm: &VmRecord,
        settings: &Settings,
        guest: &GuestClient,
        from: StartedFrom,
        timings: &mut Timings,
    ) -> Result<()> {
        self.faults.at(Step::Configure)?;
        let mut lap = Lap::new();
        let secrets = settings.secrets.newest.open(self.sealer.as_deref(), vm.id)?;
        let network = self.egress.guest_network(vm.id, &settings.network);
        let grow_disk_to = self.outgrew_its_snapshot(vm, settings).then_some(vm.spec.disk_bytes);
        let identity = Configure { network, grow_disk_to, ..identity(vm, &secrets) };
        let configured = match from {
            StartedFrom::Snapshot => guest.rename(&identity, CONFIGURE_LIMIT).await,
            StartedFrom::Boot | StartedFrom::Seed | StartedFrom::Pool => {
                guest.configure(&identity, CONFIGURE_LIMIT).await
            }
        };
        let configured = configured.map_err(|error| self.failed_guest(vm.id, &error))?;
        if guest_clock::is_doubtful(configured.clock_us) {
            guest_clock::correct(guest).await.map_err(|error| self.failed_guest(vm.id, &error))?;
        }
        timings.configure_ms = lap.take();
        Ok(())
    }

    /// Whether the VM's disk is not as large as that of the snapshot that it was made from, and no start of it has grown
    /// its filesystem. A guest that has nothing to grow is not asked to: it would write its whole journal out.
    fn outgrew_its_snapshot(&self, vm: &VmRecord, settings: &Settings) -> bool {
        vm.base.as_ref().filter(|_| settings.last_start.is_none()).is_some_and(|base| {
            let disk = std::fs::metadata(self.snapshots.disk(&base.id));
            !disk.is_ok_and(|disk| disk.len() == vm.spec.disk_bytes)
        })
    }
}

/// Waits for a disk's content, and tells for how long.
async fn filled(filling: Option<Filling>) -> Result<f64> {
    let mut lap = Lap::new();
    if let Some(filling) = filling {
        filling.done().await?;
    }
    Ok(lap.take())
}

/// Who the guest is from now on. Nothing in it was in a guest before.
fn identity(vm: &VmRecord, secrets: &SecretEnv) -> Configure {
    let entropy: [u8; 64] = rand::random();
    let now = crate::clock::now().as_microsecond();
    Configure {
        hostname: format!("vm-{}", vm.id.to_string().chars().take(8).collect::<String>()),
        machine_id: hex::encode(rand::random::<[u8; 16]>()),
        clock_us: u64::try_from(now).unwrap_or(0),
        entropy: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, entropy),
        secret_env: secrets.variables(),
        grow_disk_to: None,
        network: None,
    }
}

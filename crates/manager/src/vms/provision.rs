//! From a record to a guest that answers: the steps of a start, and their undoing.
//!
//! Everything a VM has on the host lies in one directory named after its id, so [`Host::teardown`] needs to remember
//! nothing: it undoes a start that failed or was abandoned after any step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rds_image::{ImageError, disk};
use rds_protocol::guest::Configure;
use rds_protocol::link::History;
use rds_vmm::guest::GuestClient;
use rds_vmm::hypervisor::Log;
use rds_vmm::{Hypervisor, MachineSpec, VmId};
use tokio::task::spawn_blocking;

use super::fault::{Faults, Step};
use super::guest_clock;
use super::record::{LastStart, Sealed, Settings, StartedFrom, Timings, VmRecord};
use super::turns::{Turn, Turns};
use crate::activity::Activity;
use crate::config::StorageConfig;
use crate::egress::Egress;
use crate::error::{Chain, Error, Result};
use crate::hypervisor::FIRST_UID;
use crate::images::{ImageFiles, Images};
use crate::peers::Peers;
use crate::peers::token::BridgeToken;
use crate::pool::{Machine, record};
use crate::secrets::{Sealer, SecretEnv};
use crate::seeds::{Seed, Seeds, Size};
use crate::snapshots::Snapshots;
use crate::store::Store;

/// How long a guest may take from its first instruction to its agent's first answer. Emulated, 2 s are usual; a host
/// that starts 50 of them at once on two cores needs most of this.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// How long a guest that was restored may take to its agent's first answer. 15 ms are usual, emulated; 50 at once on two
/// cores need some seconds.
pub(super) const RESTORE_LIMIT: Duration = Duration::from_secs(30);

/// How long the agent may take to become one VM.
const CONFIGURE_LIMIT: Duration = Duration::from_secs(60);

/// What all VMs share: the doors to the outside.
#[derive(Debug)]
pub(super) struct Host {
    pub hypervisor: Arc<dyn Hypervisor>,
    pub storage: StorageConfig,
    pub store: Store,
    pub images: Arc<Images>,
    pub activity: Activity,
    pub faults: Faults,
    /// Seals VMs' secrets; `None` without `VM_SECRET_KEY`.
    pub sealer: Option<Arc<Sealer>>,
    /// What VMs start from without being booted.
    pub seeds: Arc<Seeds>,
    /// What users keep of VMs.
    pub snapshots: Snapshots,
    /// Whether each VM's monitor gets its own user.
    pub own_users: bool,
    pub peers: Peers,
    /// How many VMs are brought up at once.
    pub turns: Turns,
    /// What VMs may reach.
    pub egress: Arc<Egress>,
}

/// A VM that has come up.
pub(super) struct Started {
    pub guest: GuestClient,
    pub how: LastStart,
    /// The token of this start, if the VM is linked to providers.
    pub bridge: Option<BridgeToken>,
}

impl Host {
    pub(super) fn dir(&self, id: VmId) -> PathBuf {
        self.storage.vms_dir().join(id.to_string())
    }

    pub(super) fn disk(&self, id: VmId) -> PathBuf {
        self.dir(id).join("disk.ext4")
    }

    /// Whether the VM has its writable disk.
    pub(super) fn has_disk(&self, id: VmId) -> bool {
        self.disk(id).exists()
    }

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
        let mut lap = Lap::new();
        let (linked, token) = (!settings.links.is_empty(), BridgeToken::new());
        // A guest that was nobody's has by itself what a VM without peers has; a copy has what the other one had.
        if linked || how.from == StartedFrom::Snapshot {
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
        let mut turn = Some(self.turns.take().await);
        let mut timings = Timings { queue_ms: lap.take(), ..Timings::default() };
        if let Some(machine) = pooled {
            match self.hand_out(vm, settings, *machine, &mut timings).await {
                Ok(guest) => return Ok((guest, LastStart { from: StartedFrom::Pool, timings })),
                Err(error) => {
                    tracing::warn!(vm = %vm.id, error = %Chain(&error), "a VM is made anew, since its pooled machine is no good");
                    self.teardown(vm.id).await?;
                }
            }
        }
        lap.take();
        let spec = self.prepare(vm, &image).await?;
        timings.disk_ms = lap.take();

        self.open_network(vm.id, settings, &mut timings).await?;
        self.faults.at(Step::Boot)?;
        // Only its first start makes a VM a copy.
        let copied = vm.copied_from().filter(|_| settings.last_start.is_none());
        let (guest, from) = match copied {
            Some(base) => (self.come_up_as_copy(&spec, base, &mut timings).await?, StartedFrom::Snapshot),
            None => self.come_up(&spec, &image, &mut turn, &mut timings).await?,
        };
        self.identify(vm, settings, &guest, from, &mut timings).await?;
        if from == StartedFrom::Boot {
            self.seeds.want(&image.id, size(&spec));
        }
        Ok((guest, LastStart { from, timings }))
    }

    /// Makes a machine of the pool the VM.
    #[tracing::instrument(level = "debug", name = "hand_out", skip_all)]
    async fn hand_out(
        &self,
        vm: &VmRecord,
        settings: &Settings,
        machine: Machine,
        timings: &mut Timings,
    ) -> Result<GuestClient> {
        let dir = self.dir(vm.id);
        let mut lap = Lap::new();
        record::remove(&dir).map_err(|error| Error::internal("cannot take a machine out of the pool", error))?;
        self.faults.at(Step::Disk)?;
        if vm.snapshot.is_some() || vm.spec.disk_bytes != self.storage.overlay_size_bytes {
            self.make_disk(vm, disk::clone_into).await?;
        }
        let told = self.hypervisor.disk_changed(&dir, vm.spec.disk_bytes).await;
        told.map_err(|error| Error::internal("cannot give a pooled machine its disk", error))?;
        timings.disk_ms = lap.take();
        self.open_network(vm.id, settings, timings).await?;
        self.identify(vm, settings, &machine.guest, StartedFrom::Pool, timings).await?;
        Ok(machine.guest)
    }

    /// Lets the VM have what it may. That comes before there is anything that could send.
    #[tracing::instrument(level = "debug", name = "network", skip_all)]
    async fn open_network(&self, id: VmId, settings: &Settings, timings: &mut Timings) -> Result<()> {
        self.faults.at(Step::Rules)?;
        let mut lap = Lap::new();
        self.egress.open(id, &settings.network).await?;
        timings.network_ms = lap.take();
        Ok(())
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
        let secrets = settings.sealed.open(self.sealer.as_deref(), vm.id)?;
        let network = self.egress.guest_network(vm.id, &settings.network);
        let identity = Configure { network, ..identity(vm, &secrets) };
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

    /// Brings the machine to its agent's first answer: from a seed, or by booting it if there is none that is sound. A boot
    /// takes no turn: it may last long.
    #[tracing::instrument(level = "debug", name = "come_up", skip_all)]
    pub(super) async fn come_up(
        &self,
        spec: &MachineSpec,
        image: &ImageFiles,
        turn: &mut Option<Turn<'_>>,
        timings: &mut Timings,
    ) -> Result<(GuestClient, StartedFrom)> {
        if let Some(seed) = self.seeds.find(image, &spec.initramfs, size(spec)) {
            match self.restore(spec, image, &seed, timings).await {
                Ok(guest) => return Ok((guest, StartedFrom::Seed)),
                Err(error) => {
                    tracing::warn!(vm = %spec.id, error = %Chain(&error), "a VM is booted, since its seed is no good");
                    timings.restore_ms = 0.0;
                    self.kill_machine(spec.id).await?;
                    self.seeds.discard(&seed);
                }
            }
        }
        drop(turn.take());
        let mut lap = Lap::new();
        let booted = self.hypervisor.boot(spec).await;
        booted.map_err(|error| Error::internal(format!("cannot boot VM {}", spec.id), error))?;
        timings.boot_ms = lap.take();
        self.faults.at(Step::Connect)?;
        let guest = self.first_answer(spec.id, History::Fresh, BOOT_LIMIT).await?;
        timings.agent_ms = lap.take();
        Ok((guest, StartedFrom::Boot))
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
        timings.restore_ms = lap.take();
        self.faults.at(Step::Connect)?;
        let guest = self.first_answer(spec.id, History::Fresh, RESTORE_LIMIT).await?;
        // An upload may have put other files in their place meanwhile, which the guest's memory does not fit.
        if !self.seeds.fits(seed, image, &spec.initramfs) {
            return Err(Error::internal("cannot restore a machine", "its image changed meanwhile"));
        }
        timings.agent_ms = lap.take();
        Ok(guest)
    }

    /// Seals secrets for a VM; `version` counts their replacements.
    pub(super) fn seal(&self, vm: VmId, secrets: &SecretEnv, version: u64) -> Result<Sealed> {
        let bytes = match &self.sealer {
            _ if secrets.is_empty() => None,
            Some(sealer) => Some(sealer.seal(vm, secrets)?.into()),
            None => return Err(Error::invalid("secretEnv needs VM_SECRET_KEY to be set on the server")),
        };
        Ok(Sealed { bytes, version })
    }

    /// Makes the VM's directory, disk and initramfs.
    #[tracing::instrument(level = "debug", name = "disk", skip_all)]
    async fn prepare(&self, vm: &VmRecord, image: &ImageFiles) -> Result<MachineSpec> {
        let (dir, disk) = (self.dir(vm.id), self.disk(vm.id));
        self.faults.at(Step::Directory)?;
        make_private_dir(&dir).map_err(|error| Error::internal(format!("cannot make {}", dir.display()), error))?;

        self.faults.at(Step::Disk)?;
        if !disk.exists() {
            self.make_disk(vm, disk::clone_sparse).await?;
        }
        self.machine_spec(vm.id, Size { vcpus: vm.spec.vcpus, mem_mib: vm.spec.mem_mib }, vm.host_index, image).await
    }

    /// Clones the disk that the VM is to have to its place, by `clone`.
    async fn make_disk(
        &self,
        vm: &VmRecord,
        clone: impl FnOnce(&Path, &Path, disk::CloneMode) -> Result<u64, ImageError> + Send + 'static,
    ) -> Result<()> {
        let templates = self.storage.templates_dir();
        let snapshot = vm.snapshot.as_ref().map(|id| self.snapshots.disk(id));
        let (bytes, mode, to) = (vm.spec.disk_bytes, self.storage.clone_mode(), self.disk(vm.id));
        spawn_blocking(move || {
            let from = snapshot.map_or_else(|| disk::template(&templates, bytes), Ok)?;
            if clone(&from, &to, mode)? < bytes {
                let grown = std::fs::File::options().write(true).open(&to).and_then(|disk| disk.set_len(bytes));
                grown.map_err(|source| ImageError::Io { what: "make room for a disk".into(), source })?;
            }
            Ok(())
        })
        .await
        .map_err(|error| Error::internal("the task that makes a disk ended", error))?
        .map_err(|error: ImageError| Error::internal(format!("cannot make the disk of VM {}", vm.id), error))
    }

    /// The parts of a machine whose directory and disk are made: a VM's, or one's that may become a VM.
    pub(super) async fn machine_spec(
        &self,
        id: VmId,
        size: Size,
        host_index: u32,
        image: &ImageFiles,
    ) -> Result<MachineSpec> {
        let initramfs = self.seeds.initramfs().path(&self.storage, image).await?;
        self.faults.at(Step::Tap)?;
        let user = self.own_users.then_some(FIRST_UID + host_index);
        let nic = self.egress.attach(id, host_index, user).await?;
        Ok(MachineSpec {
            id,
            vcpus: size.vcpus,
            mem_mib: size.mem_mib,
            kernel: image.kernel.clone(),
            initramfs,
            rootfs: image.rootfs.clone(),
            disk: self.disk(id),
            dir: self.dir(id),
            user,
            nic,
            rehearse: false,
            background: false,
        })
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

    /// An error of a guest that did not come up, with the end of its console for the log.
    fn failed_guest(&self, id: VmId, why: &dyn std::fmt::Display) -> Error {
        let console = self.hypervisor.log_file(&self.dir(id), Log::Serial);
        let end = super::logs::tail(&console, 20).map(|tail| tail.lines.join("\n")).unwrap_or_default();
        Error::internal(format!("VM {id} did not come up; the end of its console:\n{end}"), why.to_string())
    }

    /// Ends the VM's machine at once, and takes its network away; the disk stays.
    pub(super) async fn end_machine(&self, id: VmId) -> Result<()> {
        self.kill_machine(id).await?;
        self.egress.close(id).await
    }

    async fn kill_machine(&self, id: VmId) -> Result<()> {
        let ended = self.hypervisor.kill(&self.dir(id)).await;
        ended.map_err(|error| Error::internal(format!("cannot end the machine of VM {id}"), error))
    }

    /// Removes everything that the VM has on the host. Can be repeated.
    pub(super) async fn teardown(&self, id: VmId) -> Result<()> {
        self.end_machine(id).await?;
        let dir = self.dir(id);
        match tokio::fs::remove_dir_all(&dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::internal(format!("cannot remove {}", dir.display()), error))
            }
            _ => Ok(()),
        }
    }
}

fn size(spec: &MachineSpec) -> Size {
    Size { vcpus: spec.vcpus, mem_mib: spec.mem_mib }
}

/// Who the guest is from now on. Nothing in it was in a guest before.
fn identity(vm: &VmRecord, secrets: &SecretEnv) -> Configure {
    let machine_id: [u8; 16] = rand::random();
    let entropy: [u8; 64] = rand::random();
    let now = jiff::Timestamp::now().as_microsecond();
    Configure {
        hostname: format!("vm-{}", vm.id.to_string().chars().take(8).collect::<String>()),
        machine_id: machine_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        clock_us: u64::try_from(now).unwrap_or(0),
        entropy: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, entropy),
        secret_env: secrets.variables(),
        grow_disk_to: vm.snapshot.is_some().then_some(vm.spec.disk_bytes),
        network: None,
    }
}

/// A directory that only the manager may enter: monitors get what they use as open descriptors.
pub(super) fn make_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Milliseconds since `begun`, to the microsecond.
fn milliseconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// Time since the last look.
pub(super) struct Lap(Instant);

impl Lap {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn take(&mut self) -> f64 {
        milliseconds(std::mem::replace(&mut self.0, Instant::now()))
    }
}

//! Copies of running VMs: memory snapshots, forks, and how a VM comes up as one.
//!
//! A copy holds whatever was in the memory of its source, so a VM that has had secrets since it was started, or has a token
//! for its peers, is not copied: they would be on the host's disk, and in a VM that was never given them.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rds_protocol::link::History;
use rds_vmm::guest::{GuestClient, GuestError};
use rds_vmm::{MachineSpec, VmId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::create::Plan;
use super::directory::Handle;
use super::failure::stopping;
use super::host::Host;
use super::last_start::{Lap, StartedFrom, Timings};
use super::limits::{LimitVm, Limits};
use super::machine::RESTORE_LIMIT;
use super::record::{Base, Live, Provision, VmRecord};
use super::request::{NewVm, count_secrets, null_is_absent};
use super::row::HALF_MADE;
use super::state::VmState;
use super::uses::Lease;
use super::view::VmView;
use super::{Vms, guest_clock};
use crate::egress::NetworkPolicy;
use crate::error::{Chain, Error, Result};
use crate::metrics;
use crate::peers::PeerLink;
use crate::peers::link::Link;
use crate::secrets::SecretEnv;
use crate::seeds::Size;
use crate::snapshots::machine::Machine;
use crate::snapshots::{Allowed, Source, Subject};
use crate::store::snapshots::SnapshotRow;

/// Forks of one request.
const MAX_FORKS: u32 = 100;

/// How long a guest may take to let its programs go on.
const LET_GO_LIMIT: Duration = Duration::from_secs(10);

/// Forks that come up at once.
const AT_ONCE: usize = 4;

/// Body of `POST /v1/vms/:id/fork`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForkVm {
    /// How many, from 1 to 100; 1 if absent.
    #[schema(example = 2)]
    pub count: Option<f64>,
    /// Environment of the secrets of each fork, each `NAME=value`. None is inherited.
    #[serde(default, deserialize_with = "null_is_absent", serialize_with = "count_secrets")]
    pub secret_env: Vec<String>,
    /// Links of each fork to provider VMs. None is inherited.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub peer_links: Vec<PeerLink>,
    /// How fast each fork may use its disk and its network, and how much of its memory it is to keep to. No limit is inherited.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub limits: LimitVm,
}

/// The VMs that a fork made.
#[derive(Debug, Serialize, ToSchema)]
pub struct Forks {
    /// As many as were asked for.
    pub vms: Vec<VmView>,
}

/// A fork request that obeys the rules.
struct Wish {
    count: u32,
    secrets: SecretEnv,
    links: Vec<Link>,
    claim: Option<String>,
    limits: Limits,
}

impl ForkVm {
    /// Checks the request for copies of a VM of so much memory.
    fn validate(self, mem_mib: u64, claim: Option<String>) -> Result<Wish> {
        let count = super::request::integer("count", self.count.unwrap_or(1.0), 1, MAX_FORKS.into())?;
        let (secrets, links) = (SecretEnv::parse(self.secret_env)?, Link::parse_all(&self.peer_links)?);
        let limits = self.limits.checked(mem_mib)?;
        Ok(Wish { count: u32::try_from(count).unwrap_or(MAX_FORKS), secrets, links, claim, limits })
    }
}

/// Whether nothing in a VM's memory is its alone.
fn may_be_copied(live: &Live) -> Result<()> {
    let secrets = &live.settings.secrets;
    if secrets.held || secrets.due {
        let how = "take them away with PUT /v1/vms/:id/secrets and an empty list, then stop the VM and start it";
        return Err(Error::conflict(format!(
            "The VM has had secrets since it was started, which a copy of its memory would hold: {how}"
        )));
    }
    if !live.settings.links.is_empty() || live.settings.bridge.is_some() {
        let how = "take its links away first, with DELETE /v1/vms/:id/peers/:alias";
        return Err(Error::conflict(format!(
            "The VM has a token for its peers, which a copy of its memory would hold: {how}"
        )));
    }
    Ok(())
}

/// The same, to be asked while the machine stands still.
fn allowed(handle: &Handle) -> Allowed {
    let live = handle.live.clone();
    Box::new(move || may_be_copied(&live.borrow()))
}

/// Lets the programs of a guest that was copied go on, with the right time if it can be set.
pub(super) async fn go_on(guest: &GuestClient) -> Result<(), GuestError> {
    let corrected = guest_clock::correct(guest).await;
    guest.let_go(LET_GO_LIMIT).await.and(corrected)
}

impl Vms {
    pub(super) fn machine(&self, id: VmId) -> Machine {
        let host = &self.0.host;
        Machine { hypervisor: Arc::clone(&host.hypervisor), dir: host.dir(id), disk: host.disk(id) }
    }

    /// What a snapshot says of its VM.
    pub(super) fn source(&self, handle: &Handle, claim: Option<String>) -> Source {
        let size = Size { vcpus: handle.vm.spec.vcpus, mem_mib: handle.vm.spec.mem_mib };
        let from = handle.live.borrow().settings.last_start.as_ref().map(|start| start.from);
        let seeded = matches!(from, Some(StartedFrom::Seed | StartedFrom::Pool));
        Source {
            base_seed: seeded.then(|| self.0.host.seeds.id(&handle.vm.image_id, size)),
            vm_id: handle.vm.id.to_string(),
            image_id: handle.vm.image_id.clone(),
            vcpus: handle.vm.spec.vcpus,
            mem_mib: handle.vm.spec.mem_mib,
            claim,
        }
    }

    /// Keeps memory, devices and disk of a running VM as they are at one moment, with the claim of the request. Must not be
    /// dropped before its end.
    pub async fn take_memory_snapshot(&self, id: VmId, claim: Option<String>) -> Result<SnapshotRow> {
        let guest = self.0.directory.guest(id).await?;
        let handle = self.0.directory.handle(id)?;
        may_be_copied(&handle.live.borrow())?;
        let fits = self.same_files(&handle).await?;
        let _turn = handle.freezing.lock().await;
        let subject = Subject::Machine(self.machine(id), guest.clone(), fits, allowed(&handle));
        let taken = self.0.host.snapshots.take(self.source(&handle, claim), subject).await;
        self.go_on(id, guest).await;
        taken
    }

    /// Sets the clock of a VM that was copied, which is behind by as long as its machine stood still, and lets its programs go on.
    async fn go_on(&self, id: VmId, guest: Lease) {
        let mut gone_on = go_on(&guest).await.map_err(Error::from);
        if gone_on.is_err() {
            // Firecracker drops the channel of a machine that it saves. Nobody is to use what is left of it.
            guest.close().await;
            gone_on = match self.0.directory.guest(id).await {
                Ok(guest) => go_on(&guest).await.map_err(Error::from),
                Err(error) => Err(error),
            };
        }
        if let Err(error) = gone_on {
            tracing::warn!(vm = %id, error = %Chain(&error), "cannot have a VM that was copied go on with the right time");
        }
    }

    /// What memory of a VM of this image depends on now.
    async fn fits(&self, image_id: &str) -> Result<String> {
        let image = self.0.host.images.resolve(Some(image_id)).await?;
        self.0.host.seeds.fits(&image)
    }

    /// What a VM's memory depends on, if a copy of it can be used now: one that comes up opens the image's files, while its
    /// memory holds parts of those that the VM was started with.
    async fn same_files(&self, handle: &Handle) -> Result<String> {
        let had = handle.live.borrow().settings.last_start.as_ref().and_then(|start| start.fits.clone());
        let now = self.fits(&handle.vm.image_id).await?;
        had.filter(|had| *had == now).ok_or_else(|| {
            let why = "its image's files, or the virtual machine monitor, have changed since the VM was started";
            Error::conflict(format!("The VM's memory cannot be copied: {why}. Stop it and start it first"))
        })
    }

    /// A VM that goes on from a memory snapshot.
    pub(super) async fn on_memory(&self, spec: NewVm, base: &SnapshotRow, wanted: Option<u64>) -> Result<NewVm> {
        let size = (i64::from(spec.vcpus), i64::from(spec.mem_mib));
        if size != (base.cpu, base.mem_mb) {
            let (cpu, mem_mb) = (base.cpu, base.mem_mb);
            return Err(Error::invalid(format!("cpu must be {cpu} and memMb {mem_mb}, as in the memory snapshot")));
        }
        let disk_bytes = u64::try_from(base.disk_bytes).unwrap_or(0);
        if wanted.is_some_and(|wanted| wanted != disk_bytes) {
            let mib = disk_bytes >> 20;
            return Err(Error::invalid(format!("diskSizeMb must be {mib}, as in the memory snapshot")));
        }
        if base.fits.as_ref() != Some(&self.fits(&base.image_id).await?) {
            let why = "its image's files, the virtual machine monitor or the processor have changed since";
            return Err(Error::conflict(format!("The memory snapshot cannot be used any more: {why}")));
        }
        Ok(spec)
    }

    /// Makes copies of a running VM, which goes on: all, or none. Their rows have the claim of the request. Must not be
    /// dropped before its end.
    #[tracing::instrument(level = "debug", name = "fork", skip_all, fields(vm = %id))]
    pub async fn fork(&self, id: VmId, request: ForkVm, claim: Option<String>) -> Result<Forks> {
        let mem_mib = self.0.directory.handle(id)?.vm.spec.mem_mib;
        let forked = self.make_forks(id, request.validate(mem_mib.into(), claim)?).await;
        metrics::fork(&forked);
        forked
    }

    async fn make_forks(&self, id: VmId, wish: Wish) -> Result<Forks> {
        self.check_providers(&wish.links)?;
        let guest = self.0.directory.guest(id).await?;
        let handle = self.0.directory.handle(id)?;
        may_be_copied(&handle.live.borrow())?;
        let fits = self.same_files(&handle).await?;
        self.room_for(wish.count)?;
        let turn = handle.freezing.lock().await;
        let saved = self.0.host.snapshots.save_draft(&self.machine(id), &guest, allowed(&handle)).await;
        drop(turn);
        self.go_on(id, guest).await;
        let (draft, stood_still) = saved?;
        tracing::info!(vm = %id, count = wish.count, stood_still_ms = stood_still.as_millis(), "forking a VM");
        let network = handle.live.borrow().settings.network.clone();
        let base = Base { id: draft.clone(), fits: Some(fits) };
        let made = self.fork_from(&handle.vm, &network, &base, &wish).await;
        if let Err(error) = self.0.host.snapshots.discard(&draft).await {
            // The next server removes it.
            tracing::warn!(error = %Chain(&error), "cannot remove what forks were made from");
        }
        Ok(Forks { vms: made? })
    }

    async fn fork_from(
        &self,
        source: &VmRecord,
        network: &NetworkPolicy,
        base: &Base,
        wish: &Wish,
    ) -> Result<Vec<VmView>> {
        let (begun, failed) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let (all, others) = watch::channel(false);
        let fork_one = async || {
            let plan = Plan {
                spec: NewVm { name: None, limits: wish.limits, ..source.spec.clone() },
                image_id: source.image_id.clone(),
                base: Some(base.clone()),
                provision: Provision::Snapshot,
                network: network.clone(),
                others: Some(others.clone()),
                claim: wish.claim.clone(),
            };
            let (handle, created) = self.begin(plan, None, &wish.secrets, wish.links.clone()).await?;
            begun.lock().unwrap_or_else(PoisonError::into_inner).push(handle.vm.id);
            created.await.map_err(|_| stopping())??;
            Ok(handle)
        };
        let fork = async |_| {
            let up = fork_one().await;
            failed.fetch_or(up.is_err(), Ordering::Relaxed);
            up
        };
        // After one that failed no other is begun, but those that are come to their end.
        let wanted = stream::iter(0..wish.count).take_while(|_| ready(!failed.load(Ordering::Relaxed)));
        let up: Vec<Result<Handle>> = wanted.map(fork).buffered(AT_ONCE).collect().await;
        let made = match up.into_iter().collect::<Result<Vec<Handle>>>() {
            Ok(forks) => self.run_together(&forks).await.map(|()| forks),
            failed => failed,
        };
        match made {
            Ok(mut forks) => {
                all.send_replace(true);
                for fork in &mut forks {
                    // It may have been deleted already.
                    let _ = fork.live.wait_for(|live| live.state != VmState::Starting).await;
                }
                Ok(forks.iter().map(|fork| self.view(fork)).collect())
            }
            Err(error) => {
                for id in begun.into_inner().unwrap_or_else(PoisonError::into_inner) {
                    // One that failed is gone already.
                    if let Err(error) = self.delete_vm(id).await {
                        tracing::debug!(vm = %id, %error, "a fork that is not wanted any more");
                    }
                }
                Err(error)
            }
        }
    }

    /// Writes down that forks run. From here on a manager that finds them keeps them; before, it removes them.
    async fn run_together(&self, forks: &[Handle]) -> Result<()> {
        let ids: Vec<String> = forks.iter().map(|fork| fork.vm.id.to_string()).collect();
        self.0.host.store.turn_vms(&ids, HALF_MADE, VmState::Running.as_str()).await
    }
}

impl Host {
    /// Brings a machine up as a copy of another, to its agent's first answer.
    pub(super) async fn come_up_as_copy(
        &self,
        spec: &MachineSpec,
        base: &str,
        timings: &mut Timings,
    ) -> Result<GuestClient> {
        let mut lap = Lap::new();
        let memory = self.snapshots.memory(base);
        let restored = self.hypervisor.restore(spec, &memory).await;
        restored.map_err(|error| Error::internal("cannot restore a machine with its memory", error))?;
        timings.restore_ms = lap.take();
        // Its agent may still have the connection of the VM that it was.
        let guest = self.first_answer(spec.id, History::Closed, RESTORE_LIMIT).await?;
        timings.agent_ms = lap.take();
        Ok(guest)
    }
}

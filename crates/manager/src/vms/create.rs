//! Making a VM: what was asked for is checked, the quota and the name are, the row is written, and the VM's task begins.

use std::sync::Arc;

use rds_vmm::VmId;
use tokio::sync::{oneshot, watch};

use super::Vms;
use super::actor::{Begin, Reply};
use super::directory::Handle;
use super::failure::stopping;
use super::record::{Base, Generations, Provision, Settings, VmRecord};
use super::request::{self, CreateVm, NewVm};
use super::state::VmState;
use super::view::VmView;
use crate::clock;
use crate::egress::NetworkPolicy;
use crate::error::{Error, Result};
use crate::hold::Hold;
use crate::metrics;
use crate::peers::link::Link;
use crate::pool::{Kind, Taken};
use crate::secrets::SecretEnv;
use crate::snapshots;
use crate::store::snapshots::SnapshotRow;

/// What a VM is to be, apart from what may be changed later.
pub(super) struct Plan {
    pub spec: NewVm,
    pub image_id: String,
    pub base: Option<Base>,
    pub provision: Provision,
    pub network: NetworkPolicy,
    /// If it is one of several: true once all of them are written down as running.
    pub others: Option<watch::Receiver<bool>>,
    /// Of the request that makes it.
    pub claim: Option<String>,
}

impl Vms {
    /// Makes a VM and waits until it runs. When this fails, nothing of it is left. Must not be dropped before its end.
    pub async fn create(&self, request: CreateVm) -> Result<VmView> {
        self.create_for(None, request).await
    }

    /// The same for a request with a claim, which the VM's row gets.
    pub async fn create_for(&self, claim: Option<String>, request: CreateVm) -> Result<VmView> {
        let under_way = metrics::create();
        let created = self.create_once(claim, request).await;
        under_way.end(&created);
        created
    }

    #[tracing::instrument(level = "debug", name = "create", skip_all)]
    async fn create_once(&self, claim: Option<String>, request: CreateVm) -> Result<VmView> {
        let asked = request.validate(&self.0.limits, self.0.host.storage.overlay_size_bytes)?;
        let request::Asked { vm: mut spec, secrets, links, network, snapshot, wanted_bytes } = asked;
        self.0.host.egress.check(&network)?;
        self.check_providers(&links)?;
        let (mut provision, mut base, mut held) = (Provision::Boot, None, None);
        if let Some(id) = &snapshot {
            let (row, hold) = self.snapshot_to_start_from(id).await?;
            held = Some(hold);
            spec = on_snapshot(spec, &row, wanted_bytes)?;
            if row.kind == snapshots::Kind::Vm.as_str() {
                spec = self.on_memory(spec, &row, wanted_bytes).await?;
                provision = Provision::Snapshot;
            }
            base = Some(Base { id: row.id, fits: row.fits });
        }
        let image = self.0.host.images.resolve(spec.image_id.as_deref()).await?;
        let kind = match provision {
            Provision::Boot => self.kind(&image, &spec).await,
            Provision::Snapshot => None,
        };
        let plan = Plan { spec, image_id: image.id.clone(), base, provision, network, others: None, claim };
        let (handle, created) = self.begin(plan, kind, &secrets, links).await?;
        // The VM's row protects the image from here on.
        drop(image);
        created.await.map_err(|_| stopping())??;
        // It has a disk of its own now.
        drop(held);
        Ok(self.view(&handle))
    }

    /// What an equal request made, of these VMs; those that are gone or broken are left out. A conflict if one is still being
    /// made.
    pub fn made(&self, ids: &[String]) -> Result<Vec<VmView>> {
        let made = ids.iter().filter_map(|id| self.get(id.parse().ok()?).ok());
        let made: Vec<VmView> = made.filter(|vm| vm.state != VmState::Error).collect();
        if made.iter().any(|vm| matches!(vm.state, VmState::Created | VmState::Starting)) {
            return Err(Error::conflict("What this request makes is still being made; try again later"));
        }
        Ok(made)
    }

    /// Writes a new VM down and starts its task, which tells when it runs, or is up if it is one of several. It gets a pooled machine of this kind if there
    /// is one. Must not be dropped before its end: a row that is written has a task.
    pub(super) async fn begin(
        &self,
        plan: Plan,
        kind: Option<Kind>,
        secrets: &SecretEnv,
        links: Vec<Link>,
    ) -> Result<(Handle, oneshot::Receiver<Result<()>>)> {
        let Plan { spec, image_id, base, provision, network, others, claim } = plan;
        let (reply, created) = Reply::channel();
        let _admission = self.0.admission.lock().await;
        self.admit(spec.name.as_deref())?;
        let pooled = kind.and_then(|kind| self.0.pool.take(&kind));
        let (id, host_index, taken) = match pooled {
            Some((id, host_index, taken)) => (id, host_index, Some(taken)),
            None => (VmId::new(), self.free_host_index(), None),
        };
        let address = self.0.host.egress.address(host_index)?;
        let secrets = Generations {
            newest: self.0.host.seal(id, secrets, 1)?,
            held: !secrets.is_empty(),
            ..Generations::default()
        };
        let settings = Settings { secrets, links: links.into(), network, bridge: None, last_start: None };
        let vm = VmRecord { id, spec, image_id, base, provision, host_index, created_at: clock::now_ms() };
        self.0.host.store.insert_vm(&vm.to_row(&settings, address), claim.as_deref()).await?;
        let begin = match others {
            Some(all) => Begin::CreateWithOthers(reply, all),
            None => Begin::Create(reply, taken.and_then(Taken::keep).map(Box::new)),
        };
        Ok((self.spawn(vm, settings, VmState::Created, begin), created))
    }

    async fn snapshot_to_start_from(&self, id: &str) -> Result<(SnapshotRow, Arc<Hold>)> {
        if id.starts_with("seed-") {
            let what = "is made by the server itself, and VMs of its image start from it anyway";
            return Err(Error::invalid(format!("{id} {what}: it cannot be named")));
        }
        self.0.host.snapshots.hold(id).await
    }

    /// Whether every link leads to a VM that is there.
    pub(super) fn check_providers(&self, links: &[Link]) -> Result<()> {
        let missing = links.iter().find(|link| self.handle(link.provider).is_err());
        missing.map_or(Ok(()), |Link { alias, provider, .. }| {
            Err(Error::Invalid(format!("Peer alias {alias}: there is no VM {provider}")))
        })
    }

    /// Whether so many more VMs may be made.
    pub(super) fn room_for(&self, count: u32) -> Result<()> {
        let live = self.0.directory.lock().values().filter(|handle| !handle.is_deleted()).count();
        let max = self.0.limits.max_vms;
        if live + count as usize <= max as usize {
            return Ok(());
        }
        Err(Error::TooMany { message: format!("VM quota exceeded (maxVms={max})"), retry_after: None })
    }

    /// Whether one more VM may be made.
    fn admit(&self, name: Option<&str>) -> Result<()> {
        self.room_for(1)?;
        let registry = self.0.directory.lock();
        if let Some(name) = name
            && registry.values().any(|handle| handle.vm.spec.name.as_deref() == Some(name) && !handle.is_deleted())
        {
            return Err(Error::conflict(format!("There is a VM named {name} already")));
        }
        Ok(())
    }

    /// A small number that is nobody's. Whoever gives it to somebody holds `admission` until that is known.
    pub(super) fn free_host_index(&self) -> u32 {
        let mut taken = self.0.pool.host_indices();
        taken.extend(self.0.directory.lock().values().map(|handle| handle.vm.host_index));
        (0..).find(|index| !taken.contains(index)).expect("fewer VMs than numbers")
    }
}

/// A VM whose disk is made from a snapshot's.
fn on_snapshot(spec: NewVm, base: &SnapshotRow, wanted_bytes: Option<u64>) -> Result<NewVm> {
    if spec.image_id.as_ref().is_some_and(|id| *id != base.image_id) {
        return Err(Error::invalid(format!("The snapshot is of a VM with image {}: name that one", base.image_id)));
    }
    let least = u64::try_from(base.disk_bytes).unwrap_or(0);
    let disk_bytes = wanted_bytes.unwrap_or(least);
    if disk_bytes < least {
        return Err(Error::invalid(format!("diskSizeMb must be at least {}, as in the snapshot", least >> 20)));
    }
    Ok(NewVm { image_id: Some(base.image_id.clone()), disk_bytes, ..spec })
}

//! VMs: making, finding, starting, stopping and deleting them, and using what runs in them.
//!
//! One task drives each VM ([`actor`]); this module keeps the tasks' addresses and hands out what they
//! publish. It must not know HTTP, nor which monitor runs the machines.

mod actor;
pub mod archive;
pub mod copies;
mod create;
pub(crate) mod directory;
mod failure;
mod fault;
pub mod files;
mod guest_clock;
mod host;
pub mod idle;
mod last_start;
pub mod limits;
pub mod logs;
mod machine;
mod parts;
pub mod program;
mod provision;
pub(crate) mod record;
mod recover;
mod refill;
pub mod request;
mod row;
pub mod run;
pub mod run_log;
pub mod state;
pub mod stream;
mod turns;
pub(crate) mod uses;
mod view;

use std::sync::{Arc, Mutex};

use rds_vmm::hypervisor::Description;
use rds_vmm::{Hypervisor, VmId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use last_start::Timings;
pub use record::VmRecord;
pub use view::VmView;

use crate::activity::Activity;
use crate::audit::Audit;
use crate::config::{Config, LimitsConfig};
use crate::egress::{Egress, PatchNetwork};
use crate::error::{Error, Result};
use crate::hypervisor::MonitorUsers;
use crate::images::Images;
use crate::peers::{PatchLink, Peers};
use crate::pool::{Kind, Pool};
use crate::secrets::{Sealer, SecretEnv};
use crate::seeds::{Seeds, Size};
use crate::snapshots::{Snapshots, Subject};
use crate::store::Store;
use crate::store::snapshots::SnapshotRow;

use actor::{Actor, Begin, Command, Reply};
use directory::{Directory, Handle};
use failure::no_such_vm;
use host::Host;
use record::{Live, Settings};
use state::VmState;
use turns::Turns;
use uses::{Lease, Uses};
use view::Place;

/// Commands that may wait for one VM's task.
const COMMANDS: usize = 16;

/// What VMs are made with.
#[derive(Debug, Clone)]
pub struct Services {
    /// What they run on.
    pub images: Arc<Images>,
    /// What they start from.
    pub seeds: Arc<Seeds>,
    /// What they may reach.
    pub egress: Arc<Egress>,
    /// Where it is told what happens to them.
    pub activity: Activity,
    /// Where it is written down what they call of each other.
    pub audit: Audit,
    /// What seals their secrets; none without `VM_SECRET_KEY`.
    pub sealer: Option<Arc<Sealer>>,
}

/// The service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Vms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Arc<Host>,
    limits: LimitsConfig,
    directory: Directory,
    /// Held while a new VM's index and place in the quota are decided and written down.
    admission: tokio::sync::Mutex<()>,
    pool: Arc<Pool>,
    /// The size that the pool has by itself.
    template: Size,
    /// Machines of an earlier server's pool, with their host indices.
    found: Mutex<Vec<(VmId, Kind, u32)>>,
    refill: Mutex<Option<JoinHandle<()>>>,
}

impl Vms {
    /// Takes up every VM that an earlier manager left, and removes what belongs to none.
    pub async fn start(
        hypervisor: Arc<dyn Hypervisor>,
        config: &Config,
        store: Store,
        services: Services,
    ) -> Result<Self> {
        let Services { images, seeds, egress, activity, audit, sealer } = services;
        let directory = Directory::default();
        let peers = Peers::new(directory.clone(), sealer.clone(), audit, activity.clone());
        let (storage, limits) = (config.storage.clone(), config.limits.clone());
        let users = rds_vmm::privileges::has_users().then(|| MonitorUsers::of(&config.hypervisor));
        let faults = fault::Faults::from_env()?;
        let (dir, mode) = (storage.snapshots_dir(), storage.clone_mode());
        let snapshots = Snapshots::start(store.clone(), activity.clone(), dir, mode).await?;
        let host = Host {
            hypervisor,
            storage,
            store,
            images,
            seeds,
            snapshots,
            activity,
            faults,
            sealer,
            users,
            peers,
            turns: Turns::new(),
            egress,
            max_allow_ips: limits.max_allow_ips,
        };
        let vms = Self(Arc::new(Inner {
            host: Arc::new(host),
            limits,
            directory,
            admission: tokio::sync::Mutex::default(),
            pool: Pool::new(&config.snapshots),
            template: config.snapshots.template(),
            found: Mutex::default(),
            refill: Mutex::default(),
        }));
        recover::recover(&vms).await?;
        Ok(vms)
    }

    /// The fingerprint of `NAME=value` pairs, if there are any and a key for them.
    pub fn fingerprint(&self, secrets: &[String]) -> Option<[u8; 32]> {
        self.0.host.sealer.as_ref().filter(|_| !secrets.is_empty()).map(|sealer| sealer.fingerprint(secrets))
    }

    /// The snapshots that users made.
    pub fn snapshots(&self) -> &Snapshots {
        &self.0.host.snapshots
    }

    /// Keeps the disk of a running VM as it is now, with the claim of the request. Must not be dropped before its end: the
    /// turn would be the next one's.
    pub async fn take_snapshot(&self, id: VmId, claim: Option<String>) -> Result<SnapshotRow> {
        let guest = self.0.directory.guest(id).await?;
        let handle = self.0.directory.handle(id)?;
        // A guest can be frozen only once at a time.
        let _turn = handle.freezing.lock().await;
        self.0.host.snapshots.take(self.source(&handle, claim), Subject::Disk(self.machine(id), guest.clone())).await
    }

    /// Starts the task of a VM.
    fn spawn(&self, vm: VmRecord, settings: Settings, state: VmState, begin: Begin) -> Handle {
        let vm = Arc::new(vm);
        let live = Live { state, guest: None, error: None, deleted: false, settings };
        let (live, published) = watch::channel(live);
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (freezing, uses) = (Arc::default(), Arc::new(Uses::default()));
        let uses_too = Arc::clone(&uses);
        let handle = Handle { vm: Arc::clone(&vm), live: published, commands: sender, uses, freezing };
        self.0.directory.lock().insert(vm.id, handle.clone());
        let actor = Actor::new(Arc::clone(&self.0.host), Arc::clone(&vm), live, commands, uses_too);
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            actor.run(begin).await;
            if let Some(inner) = inner.upgrade() {
                inner.directory.lock().remove(&vm.id);
                inner.host.peers.forget(vm.id);
            }
        });
        handle
    }

    /// All VMs, oldest first.
    pub fn list(&self) -> Vec<VmView> {
        let mut handles: Vec<Handle> = self.0.directory.lock().values().cloned().collect();
        handles.retain(|handle| !handle.is_deleted());
        handles.sort_by_key(|handle| (handle.vm.created_at, handle.vm.id));
        handles.iter().map(|handle| self.view(handle)).collect()
    }

    /// One VM.
    pub fn get(&self, id: VmId) -> Result<VmView> {
        let handle = self.handle(id)?;
        Ok(self.view(&handle))
    }

    fn view(&self, handle: &Handle) -> VmView {
        let egress = &self.0.host.egress;
        let address = egress.address(handle.vm.host_index).ok().flatten();
        let place = Place { address, counted: egress.view(handle.vm.id) };
        handle.vm.view(&handle.live.borrow(), place)
    }

    /// Changes what a VM may reach, at once if it runs. After an error nothing is changed.
    pub async fn patch_network(&self, id: VmId, patch: PatchNetwork) -> Result<()> {
        self.command(id, |reply| Command::PatchNetwork(patch, reply)).await
    }

    /// Boots a stopped VM and waits until it runs.
    pub async fn start_vm(&self, id: VmId) -> Result<()> {
        self.command(id, Command::Start).await
    }

    /// Syncs a running VM's disk, ends its machine and waits for that.
    pub async fn stop_vm(&self, id: VmId) -> Result<()> {
        self.command(id, Command::Stop).await
    }

    /// Has a running VM stand still in memory. Refused while calls into it or out of it are under way.
    pub async fn pause_vm(&self, id: VmId) -> Result<()> {
        self.command(id, Command::Pause).await
    }

    /// Has a paused VM go on. So does every call that needs it.
    pub async fn resume_vm(&self, id: VmId) -> Result<()> {
        self.command(id, Command::Resume).await
    }

    /// Removes a VM and everything of it, whatever it is doing.
    pub async fn delete_vm(&self, id: VmId) -> Result<()> {
        self.command(id, Command::Delete).await
    }

    /// Replaces a VM's secrets. Programs that begin after this returns see the new ones; those that run keep the old.
    ///
    /// They are written down before the guest gets them: after an error of its agent they are given to it again until it
    /// has them, and nobody gets at the VM before.
    pub async fn set_secrets(&self, id: VmId, secrets: SecretEnv) -> Result<()> {
        self.command(id, |reply| Command::SetSecrets(secrets, reply)).await
    }

    /// The end of one of a VM's logs.
    pub async fn logs(&self, id: VmId, kind: &str, lines: u32) -> Result<logs::VmLog> {
        self.handle(id)?;
        let file = self.0.host.hypervisor.log_file(&self.0.host.dir(id), logs::log_of(kind)?);
        let read = tokio::task::spawn_blocking(move || logs::tail(&file, lines)).await;
        let read = read.map_err(|error| Error::internal("the task that reads a log ended", error))?;
        let log = read.map_err(|error| Error::internal("cannot read a VM's log", error))?;
        Ok(logs::VmLog { kind: kind.to_owned(), ..log })
    }

    /// How many VMs are in each state.
    pub fn count_by_state(&self) -> Vec<(VmState, usize)> {
        let registry = self.0.directory.lock();
        let states: Vec<VmState> = registry
            .values()
            .map(|handle| handle.live.borrow())
            .filter(|live| !live.deleted)
            .map(|live| live.state)
            .collect();
        VmState::ALL.map(|state| (state, states.iter().filter(|of| **of == state).count())).into()
    }

    /// How many machines wait to become VMs.
    pub fn pooled(&self) -> usize {
        self.0.pool.len()
    }

    /// What runs the VMs.
    pub fn monitor(&self) -> Description {
        self.0.host.hypervisor.description().clone()
    }

    /// Puts anew in place what a running consumer sees of its peers.
    pub async fn sync_peers(&self, id: VmId) -> Result<()> {
        self.command(id, Command::SyncPeers).await
    }

    /// Changes one of a VM's links, and puts in place what that changes. After an error nothing is changed.
    pub async fn patch_link(&self, id: VmId, alias: String, patch: PatchLink) -> Result<()> {
        self.command(id, |reply| Command::PatchLink(alias, patch, reply)).await
    }

    /// Takes one of a VM's links away. After an error nothing is changed.
    pub async fn unlink(&self, id: VmId, alias: String) -> Result<()> {
        self.command(id, |reply| Command::Unlink(alias, reply)).await
    }

    /// Calls between VMs.
    pub fn peers(&self) -> &Peers {
        &self.0.host.peers
    }

    /// The connection to the agent of a running VM, for one call. A paused VM is woken.
    async fn guest(&self, id: VmId) -> Result<Lease> {
        self.0.directory.guest(id).await
    }

    async fn command(&self, id: VmId, command: impl FnOnce(Reply) -> Command) -> Result<()> {
        let handle = self.handle(id)?;
        let (reply, done) = Reply::channel();
        handle.commands.send(command(reply)).await.map_err(|_| no_such_vm())?;
        // A task that ends without an answer has removed its VM for somebody else.
        done.await.map_err(|_| no_such_vm())?
    }

    fn handle(&self, id: VmId) -> Result<Handle> {
        self.0.directory.handle(id)
    }
}

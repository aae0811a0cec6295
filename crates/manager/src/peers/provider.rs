//! Providers: what each has declared and its agent has loaded, and what must not leave it.
//!
//! All that is kept here can be made again from the provider's VM, and is when the VM was started anew or the manager
//! was. Everything that is read from a provider is hostile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use rds_peers::manifest::{self, Alias, Export, Limits, MANIFEST_PATH, Manifest, Module, ModulePath, ProviderFault};
use rds_peers::schema::{ExportChecker, SchemaFault};
use rds_peers::strike::Striker;
use rds_protocol::files::FileKind;
use rds_protocol::peer::{Offer, OfferedModule, Uncallable};
use rds_vmm::VmId;
use rds_vmm::guest::{GuestClient, GuestError};
use tokio::task::spawn_blocking;

use crate::error::{Error, Result};
use crate::secrets::Sealer;
use crate::vms::directory::Directory;
use crate::vms::record::Sealed;
use crate::vms::uses::Lease;

/// How long a look at one of a provider's files may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// How long a provider may take to load its modules; its agent gives up earlier.
const OFFER_LIMIT: Duration = Duration::from_secs(90);

/// Files of one provider that are looked at at once.
const LOOKS: usize = 16;

/// All providers that somebody was linked to or called.
#[derive(Debug)]
pub(super) struct Providers {
    directory: Directory,
    sealer: Option<Arc<Sealer>>,
    known: Mutex<HashMap<VmId, Arc<Provider>>>,
}

#[derive(Debug, Default)]
struct Provider {
    contract: Mutex<Option<Arc<Contract>>>,
    striker: Mutex<Option<Arc<Strikes>>>,
    /// Held while the provider is looked at, so that it is looked at once.
    looking: tokio::sync::Mutex<()>,
}

/// What a provider offers: its manifest, and how its schemas check values. Its agent has loaded the modules.
#[derive(Debug)]
pub(super) struct Contract {
    pub manifest: Manifest,
    checkers: HashMap<(String, String), ExportChecker>,
    /// The connection to the agent that loaded them. Once it has ended, the agent has to be asked again.
    guest: GuestClient,
}

/// The secrets of a provider, to be struck out of what leaves it.
#[derive(Debug)]
pub(super) struct Strikes {
    sealed: Sealed,
    pub striker: Arc<Striker>,
    /// Of the generation before: new secrets are known here a moment before the provider's agent has them, and a call
    /// that is made in between still sees the old ones.
    pub replaced: Option<Arc<Striker>>,
}

impl Contract {
    /// A declared export, and how its arguments and results are checked.
    pub(super) fn export(&self, module: &str, export: &str) -> Option<(&Module, &Export, &ExportChecker)> {
        let module = self.manifest.module(module)?;
        let export = module.export(export)?;
        let checker = self.checkers.get(&(module.path.as_str().to_owned(), export.name.as_str().to_owned()))?;
        Some((module, export, checker))
    }
}

impl Strikes {
    /// Generation of the secrets.
    pub(super) fn version(&self) -> u64 {
        self.sealed.version
    }
}

impl Providers {
    pub(super) fn new(directory: Directory, sealer: Option<Arc<Sealer>>) -> Self {
        Self { directory, sealer, known: Mutex::default() }
    }

    /// Forgets a VM that is gone.
    pub(super) fn forget(&self, id: VmId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn known(&self, id: VmId) -> Arc<Provider> {
        Arc::clone(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default())
    }

    /// The connection to a provider's agent, for one call; a conflict if it neither runs nor is paused.
    pub(super) async fn guest(&self, alias: &Alias, id: VmId) -> Result<Lease> {
        let state = self.directory.state_name(id);
        match self.directory.guest(id).await {
            Err(Error::Conflict(_) | Error::NotFound(_)) => {
                Err(Error::Conflict(ProviderFault::NotRunning(state.into()).for_alias(alias)))
            }
            guest => guest,
        }
    }

    /// What a provider offers, as it was last looked at.
    pub(super) async fn contract(&self, alias: &Alias, id: VmId) -> Result<Arc<Contract>> {
        let provider = self.known(id);
        if let Some(contract) = provider.current() {
            return Ok(contract);
        }
        let _turn = provider.looking.lock().await;
        match provider.current() {
            Some(contract) => Ok(contract),
            None => self.look(alias, id, &provider).await,
        }
    }

    /// Looks at a provider anew: reads its manifest and has its agent load what it declares.
    pub(super) async fn refresh(&self, alias: &Alias, id: VmId) -> Result<Arc<Contract>> {
        let provider = self.known(id);
        let _turn = provider.looking.lock().await;
        self.look(alias, id, &provider).await
    }

    async fn look(&self, alias: &Alias, id: VmId, provider: &Provider) -> Result<Arc<Contract>> {
        let guest = self.guest(alias, id).await?;
        let refuse = |fault: ProviderFault| match fault {
            ProviderFault::NotRunning(_) => Error::Conflict(fault.for_alias(alias)),
            _ => Error::Invalid(fault.for_alias(alias)),
        };
        let text = read_manifest(&guest).await?.map_err(refuse)?;
        let (manifest, checkers) = spawn_blocking(move || compile(&text))
            .await
            .map_err(|error| Error::internal("the task that reads a manifest ended", error))?
            .map_err(refuse)?;
        let looks: Vec<_> = manifest.modules.iter().map(|module| check_file(&guest, &module.path)).collect();
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS);
        while let Some(found) = looks.next().await {
            found?.map_err(refuse)?;
        }
        drop(looks);
        let strikes = self.strikes(id)?;
        let offered = guest.offer(&offer(&manifest), OFFER_LIMIT).await?;
        if let Some(first) = offered.uncallable.first() {
            let fault = uncallable(&manifest, first, &strikes.striker);
            return Err(fault.map_or_else(|| Error::BadGateway("The VM's agent answered nonsense".into()), refuse));
        }
        let contract = Arc::new(Contract { manifest, checkers, guest: guest.clone() });
        *provider.contract.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&contract));
        Ok(contract)
    }

    /// What strikes a provider's present secrets out.
    pub(super) fn strikes(&self, id: VmId) -> Result<Arc<Strikes>> {
        let sealed = self.directory.handle(id)?.live.borrow().settings.sealed.clone();
        let provider = self.known(id);
        let mut kept = provider.striker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(strikes) = kept.as_ref().filter(|kept| kept.sealed == sealed) {
            return Ok(Arc::clone(strikes));
        }
        let secrets = sealed.open(self.sealer.as_deref(), id)?;
        let failed = |error| Error::internal("a VM's secrets are too many to be struck out", error);
        let striker = Striker::new(secrets.values()).map_err(failed)?;
        let replaced = kept.as_ref().map(|kept| Arc::clone(&kept.striker));
        Ok(Arc::clone(kept.insert(Arc::new(Strikes { sealed, striker: Arc::new(striker), replaced }))))
    }
}

impl Provider {
    fn current(&self) -> Option<Arc<Contract>> {
        let contract = self.contract.lock().unwrap_or_else(PoisonError::into_inner).clone();
        contract.filter(|contract| !contract.guest.is_closed())
    }
}

/// The bytes of a provider's manifest, no more than one byte over the limit.
async fn read_manifest(guest: &GuestClient) -> Result<Result<Vec<u8>, ProviderFault>> {
    let limit = Limits::default().bytes;
    let mut text = Vec::new();
    let mut download = match guest.get_content(MANIFEST_PATH, u64::MAX, LOOK_LIMIT).await {
        Ok(download) => download,
        Err(GuestError::Status { status: 404, .. }) => return Ok(Err(ProviderFault::MissingManifest)),
        Err(GuestError::Status { .. }) => return Ok(Err(ProviderFault::UnreadableManifest)),
        Err(error) => return Err(error.into()),
    };
    while text.len() <= limit
        && let Some(piece) = download.next().await
    {
        text.extend_from_slice(&piece?);
    }
    Ok(Ok(text))
}

type Compiled = (Manifest, HashMap<(String, String), ExportChecker>);

fn compile(text: &[u8]) -> Result<Compiled, ProviderFault> {
    let manifest = manifest::parse(text, Limits::default())?;
    let mut checkers = HashMap::new();
    for module in &manifest.modules {
        for export in &module.exports {
            let key = (module.path.as_str().to_owned(), export.name.as_str().to_owned());
            checkers.insert(key, ExportChecker::compile(export).map_err(broken_schema)?);
        }
    }
    Ok((manifest, checkers))
}

/// [`manifest::parse`] compiled the same schema.
fn broken_schema(fault: SchemaFault) -> ProviderFault {
    let mut faults = manifest::Faults::default();
    faults.shown.push(manifest::Fault { pointer: fault.pointer, message: fault.message });
    ProviderFault::Invalid(faults)
}

async fn check_file(guest: &GuestClient, module: &ModulePath) -> Result<Result<(), ProviderFault>> {
    match guest.stat(&module.absolute(), LOOK_LIMIT).await {
        Ok(stat) if stat.kind == FileKind::File => Ok(Ok(())),
        Ok(_) | Err(GuestError::Status { .. }) => Ok(Err(ProviderFault::MissingModule(module.clone()))),
        Err(error) => Err(error.into()),
    }
}

fn offer(manifest: &Manifest) -> Offer {
    let module = |module: &Module| OfferedModule {
        path: module.path.absolute(),
        exports: module.exports.iter().map(|export| export.name.as_str().to_owned()).collect(),
    };
    Offer { modules: manifest.modules.iter().map(module).collect() }
}

/// The agent's complaint in the words of the contract; `None` if it is about something that was not offered.
fn uncallable(manifest: &Manifest, complaint: &Uncallable, striker: &Striker) -> Option<ProviderFault> {
    let path = ModulePath::from_absolute(&complaint.path).ok()?;
    let module = manifest.module(path.as_str())?;
    let export = module.export(&complaint.export)?.name.clone();
    let reason = short(&striker.text(&complaint.reason).value);
    Some(ProviderFault::NotCallable { export, module: module.path.clone(), reason })
}

/// A guest's words, fit to be shown.
fn short(words: &str) -> String {
    const LONGEST: usize = 500;
    words.chars().filter(|c| !c.is_control() || *c == '\n').take(LONGEST).collect()
}

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

use super::large::{self, is_large};
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
    strikes: Mutex<Option<Arc<Strikes>>>,
    /// Held while the provider is looked at, so that it is looked at once.
    looking: tokio::sync::Mutex<()>,
}

/// What a provider offers: its manifest, and how its schemas check values. Its agent has loaded the modules.
#[derive(Debug)]
pub(super) struct Contract {
    pub manifest: Manifest,
    checkers: HashMap<(String, String), Arc<ExportChecker>>,
    /// The connection to the agent that loaded them. Once it has ended, the agent has to be asked again.
    guest: GuestClient,
}

/// What strikes the secrets of a provider out of what leaves it: those that it is to have and those that it may have instead,
/// for new ones are known here a moment before its agent has them.
#[derive(Debug)]
pub(super) struct Strikes(Vec<(Sealed, Arc<Striker>)>);

impl Contract {
    /// A declared export, and how its arguments and results are checked.
    pub(super) fn export(&self, module: &str, export: &str) -> Option<(&Module, &Export, &Arc<ExportChecker>)> {
        let module = self.manifest.module(module)?;
        let export = module.export(export)?;
        let checker = self.checkers.get(&(module.path.as_str().to_owned(), export.name.as_str().to_owned()))?;
        Some((module, export, checker))
    }
}

impl Strikes {
    /// The newest generation of the secrets.
    pub(super) fn version(&self) -> u64 {
        self.0.first().map_or(0, |(sealed, _)| sealed.version)
    }

    /// What strikes one generation out.
    pub(super) fn of(&self, sealed: &Sealed) -> Option<&Arc<Striker>> {
        self.0.iter().find(|(known, _)| known == sealed).map(|(_, striker)| striker)
    }

    /// What strikes out all generations of these and others.
    pub(super) fn and(&self, others: &Self) -> Vec<Arc<Striker>> {
        let others = others.0.iter().filter(|(sealed, _)| self.of(sealed).is_none());
        self.0.iter().chain(others).map(|(_, striker)| Arc::clone(striker)).collect()
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
        if let Some(first) = offered.uncallable.into_iter().next() {
            let strikers = strikes.and(&strikes);
            let fault = large::work(is_large(&first), move || uncallable(&manifest, &first, &strikers)).await?;
            return Err(fault.map_or_else(|| Error::BadGateway("The VM's agent answered nonsense".into()), refuse));
        }
        let contract = Arc::new(Contract { manifest, checkers, guest: guest.clone() });
        *provider.contract.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&contract));
        Ok(contract)
    }

    /// What strikes out the secrets that a provider may have.
    pub(super) fn strikes(&self, id: VmId) -> Result<Arc<Strikes>> {
        let secrets = self.directory.handle(id)?.live.borrow().settings.secrets.clone();
        let provider = self.known(id);
        let mut kept = provider.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(strikes) = kept.as_ref().filter(|kept| kept.0.iter().map(|(sealed, _)| sealed).eq(secrets.all())) {
            return Ok(Arc::clone(strikes));
        }
        let striker = |sealed: &Sealed| match kept.as_ref().and_then(|kept| kept.of(sealed)) {
            Some(striker) => Ok((sealed.clone(), Arc::clone(striker))),
            None => Ok((sealed.clone(), self.striker(id, sealed)?)),
        };
        let strikes = Strikes(secrets.all().map(striker).collect::<Result<_>>()?);
        Ok(Arc::clone(kept.insert(Arc::new(strikes))))
    }

    /// What strikes one generation of a VM's secrets out, made anew.
    pub(super) fn striker(&self, id: VmId, sealed: &Sealed) -> Result<Arc<Striker>> {
        let secrets = sealed.open(self.sealer.as_deref(), id)?;
        let failed = |error| Error::internal("a VM's secrets are too many to be struck out", error);
        Ok(Arc::new(Striker::new(secrets.values()).map_err(failed)?))
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

type Compiled = (Manifest, HashMap<(String, String), Arc<ExportChecker>>);

fn compile(text: &[u8]) -> Result<Compiled, ProviderFault> {
    let manifest = manifest::parse(text, Limits::default())?;
    let mut checkers = HashMap::new();
    for module in &manifest.modules {
        for export in &module.exports {
            let key = (module.path.as_str().to_owned(), export.name.as_str().to_owned());
            checkers.insert(key, Arc::new(ExportChecker::compile(export).map_err(broken_schema)?));
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
fn uncallable(manifest: &Manifest, complaint: &Uncallable, strikers: &[Arc<Striker>]) -> Option<ProviderFault> {
    let path = ModulePath::from_absolute(&complaint.path).ok()?;
    let module = manifest.module(path.as_str())?;
    let export = module.export(&complaint.export)?.name.clone();
    let reason = strikers.iter().fold(complaint.reason.clone(), |reason, striker| striker.text(&reason).value);
    let reason = short(&reason);
    Some(ProviderFault::NotCallable { export, module: module.path.clone(), reason })
}

/// A guest's words, fit to be shown.
fn short(words: &str) -> String {
    const LONGEST: usize = 500;
    words.chars().filter(|c| !c.is_control() || *c == '\n').take(LONGEST).collect()
}

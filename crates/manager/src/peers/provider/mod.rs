//! Providers: what each has declared and its agent has loaded, and what must not leave it.
//!
//! All that is kept here can be made again from the provider's VM, and is when the VM was started anew or the manager
//! was. Everything that is read from a provider is hostile.

mod look;
mod strikes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rds_peers::manifest::{Alias, Export, Manifest, Module, ProviderFault};
use rds_peers::schema::ExportChecker;
use rds_vmm::VmId;
use rds_vmm::guest::GuestClient;
use tokio::sync::OwnedMutexGuard;
use tracing::Instrument as _;

use crate::error::{Error, Result};
use crate::secrets::Sealer;
use crate::vms::directory::Directory;
use crate::vms::uses::Lease;

pub(super) use strikes::Strikes;

/// How long calls are told of a fault before the provider is looked at again: each look reads and compiles all that it
/// declares.
const REMEMBERED: Duration = Duration::from_secs(1);

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
    /// What was wrong with it at the last look, and when that was.
    fault: Mutex<Option<(ProviderFault, Instant)>>,
    strikes: Mutex<Option<Arc<Strikes>>>,
    /// Held while [`Self::strikes`] are made.
    striking: tokio::sync::Mutex<()>,
    /// Held while the provider is looked at, so that it is looked at once.
    looking: Arc<tokio::sync::Mutex<()>>,
}

/// How the arguments and results of exports are checked, by module and export.
type Checkers = HashMap<(String, String), Arc<ExportChecker>>;

/// What a look at a provider finds.
type Found = Result<Arc<Contract>, ProviderFault>;

/// What a provider offers: its manifest, and how its schemas check values. Its agent has loaded the modules.
#[derive(Debug)]
pub(super) struct Contract {
    pub manifest: Arc<Manifest>,
    checkers: Checkers,
    /// The connection to the agent that loaded them. Once it has ended, the agent has to be asked again.
    guest: GuestClient,
}

impl Contract {
    /// A declared export, and how its arguments and results are checked.
    pub(super) fn export(&self, module: &str, export: &str) -> Option<(&Module, &Export, &Arc<ExportChecker>)> {
        let module = self.manifest.module(module)?;
        let export = module.export(export)?;
        let checker = self.checkers.get(&(module.path.as_str().to_owned(), export.name.as_str().to_owned()))?;
        Some((module, export, checker))
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
        self.reach(id).await?.map_err(|fault| refusal(alias, &fault))
    }

    async fn reach(&self, id: VmId) -> Result<Result<Lease, ProviderFault>> {
        let state = self.directory.state_name(id);
        match self.directory.guest(id).await {
            Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(Err(ProviderFault::NotRunning(state.into()))),
            guest => guest.map(Ok),
        }
    }

    /// What a provider offers, as it was last looked at.
    pub(super) async fn contract(self: &Arc<Self>, alias: &Alias, id: VmId) -> Result<Arc<Contract>> {
        let provider = self.known(id);
        if let Some(contract) = provider.current() {
            return Ok(contract);
        }
        let turn = Arc::clone(&provider.looking).lock_owned().await;
        if let Some(contract) = provider.current() {
            return Ok(contract);
        }
        let found = match provider.fault() {
            Some(fault) => Err(fault),
            None => self.look(id, provider, turn).await?,
        };
        found.map_err(|fault| refusal(alias, &fault))
    }

    /// Looks at a provider anew: reads its manifest and has its agent load what it declares.
    pub(super) async fn refresh(self: &Arc<Self>, alias: &Alias, id: VmId) -> Result<Arc<Contract>> {
        let provider = self.known(id);
        let turn = Arc::clone(&provider.looking).lock_owned().await;
        self.look(id, provider, turn).await?.map_err(|fault| refusal(alias, &fault))
    }

    /// Looks at a provider. The look goes on when whoever wanted it has gone: the next one gets what it finds.
    async fn look(self: &Arc<Self>, id: VmId, provider: Arc<Provider>, turn: OwnedMutexGuard<()>) -> Result<Found> {
        let providers = Arc::clone(self);
        let look = async move {
            let _turn = turn;
            let found = providers.look_at(id, &provider).await?;
            provider.note(&found);
            Ok(found)
        };
        let looked = tokio::spawn(look.in_current_span()).await;
        looked.map_err(|error| Error::internal("the task that looks at a provider ended", error))?
    }
}

impl Provider {
    fn current(&self) -> Option<Arc<Contract>> {
        let contract = self.contract.lock().unwrap_or_else(PoisonError::into_inner).clone();
        contract.filter(|contract| !contract.guest.is_closed())
    }

    /// What is known to be wrong with it.
    fn fault(&self) -> Option<ProviderFault> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.as_ref().filter(|(_, seen)| seen.elapsed() < REMEMBERED).map(|(fault, _)| fault.clone())
    }

    fn note(&self, found: &Found) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it runs is asked before each call.
        let lasting = found.as_ref().err().filter(|fault| !matches!(fault, ProviderFault::NotRunning(_)));
        *fault = lasting.map(|fault| (fault.clone(), Instant::now()));
        if let Ok(contract) = found {
            *self.contract.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(contract));
        }
    }
}

/// A fault as it is answered.
fn refusal(alias: &Alias, fault: &ProviderFault) -> Error {
    match fault {
        ProviderFault::NotRunning(_) => Error::Conflict(fault.for_alias(alias)),
        _ => Error::Invalid(fault.for_alias(alias)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_provider_is_remembered_unless_it_does_not_run() {
        let provider = Provider::default();
        provider.note(&Err(ProviderFault::MissingManifest));
        assert_eq!(provider.fault(), Some(ProviderFault::MissingManifest));
        provider.note(&Err(ProviderFault::NotRunning("STOPPED".into())));
        assert_eq!(provider.fault(), None);
    }
}

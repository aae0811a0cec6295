//! What must not leave a provider: its secrets, in whatever form.

use std::sync::{Arc, PoisonError};

use rds_peers::strike::Striker;
use rds_vmm::VmId;

use super::Providers;
use crate::error::{Error, Result};
use crate::peers::large;
use crate::vms::record::Sealed;

/// What strikes the secrets of a provider out of what leaves it: those that it is to have and those that it may have instead,
/// for new ones are known here a moment before its agent has them.
#[derive(Debug)]
pub(in crate::peers) struct Strikes(Vec<(Sealed, Arc<Striker>)>);

impl Strikes {
    /// The newest generation of the secrets.
    pub(in crate::peers) fn version(&self) -> u64 {
        self.0.first().map_or(0, |(sealed, _)| sealed.version)
    }

    /// What strikes one generation out.
    pub(in crate::peers) fn of(&self, sealed: &Sealed) -> Option<&Arc<Striker>> {
        self.0.iter().find(|(known, _)| known == sealed).map(|(_, striker)| striker)
    }

    /// What strikes out all generations of these and others.
    pub(in crate::peers) fn and(&self, others: &Self) -> Vec<Arc<Striker>> {
        let others = others.0.iter().filter(|(sealed, _)| self.of(sealed).is_none());
        self.0.iter().chain(others).map(|(_, striker)| Arc::clone(striker)).collect()
    }
}

impl Providers {
    /// What strikes out the secrets that a provider may have.
    pub(in crate::peers) async fn strikes(&self, id: VmId) -> Result<Arc<Strikes>> {
        let live = self.directory.handle(id)?.live;
        let provider = self.known(id);
        let kept = || provider.strikes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let secrets = || live.borrow().settings.secrets.clone();
        let fits = |strikes: &Arc<Strikes>| strikes.0.iter().map(|(sealed, _)| sealed).eq(secrets().all());
        if let Some(strikes) = kept().filter(fits) {
            return Ok(strikes);
        }
        let _turn = provider.striking.lock().await;
        let (kept, secrets) = (kept(), secrets());
        let mut strikes = Vec::new();
        for sealed in secrets.all() {
            let striker = match kept.as_ref().and_then(|kept| kept.of(sealed)) {
                Some(striker) => Arc::clone(striker),
                None => self.striker(id, sealed).await?,
            };
            strikes.push((sealed.clone(), striker));
        }
        let strikes = Arc::new(Strikes(strikes));
        // Not for a call that ends after its provider was stopped.
        let kept = live.borrow().guest.is_some().then(|| Arc::clone(&strikes));
        *provider.strikes.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(strikes)
    }

    /// Drops what strikes out the secrets of a VM that runs no more: it holds them in clear.
    pub(in crate::peers) fn withdraw(&self, id: VmId) {
        let provider = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        provider.map(|provider| provider.strikes.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// What strikes one generation of a VM's secrets out, made anew. That takes up to a second.
    pub(in crate::peers) async fn striker(&self, id: VmId, sealed: &Sealed) -> Result<Arc<Striker>> {
        let secrets = sealed.open(self.sealer.as_deref(), id)?;
        let striker = large::work(true, move || Striker::new(secrets.values())).await?;
        Ok(Arc::new(striker.map_err(|error| Error::internal("a VM's secrets are too many to be struck out", error))?))
    }
}

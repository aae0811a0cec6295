//! Looking at a provider: its manifest, its files, and whether its agent can load what is declared.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use rds_peers::manifest::{self, Limits, MANIFEST_PATH, Manifest, Module, ModulePath, ProviderFault};
use rds_peers::schema::{ExportChecker, SchemaFault};
use rds_peers::strike::Striker;
use rds_protocol::files::FileKind;
use rds_protocol::peer::{Offer, OfferedModule, Uncallable};
use rds_vmm::VmId;
use rds_vmm::guest::{GuestClient, GuestError};

use super::{Checkers, Contract, Found, Provider, Providers};
use crate::error::{Error, Result};
use crate::peers::large::{self, is_large};

/// How long a look at one of a provider's files may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// How long a provider may take to load its modules; its agent gives up earlier.
const OFFER_LIMIT: Duration = Duration::from_secs(90);

/// Files of one provider that are looked at at once.
const LOOKS: usize = 16;

/// The value, or the provider's fault that there is none.
macro_rules! or_fault {
    ($found:expr) => {
        match $found {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault)),
        }
    };
}

impl Providers {
    /// What a provider offers now.
    pub(super) async fn look_at(&self, id: VmId, provider: &Provider) -> Result<Found> {
        let guest = or_fault!(self.reach(id).await?);
        let text = or_fault!(read_manifest(&guest).await?);
        let (manifest, checkers) = or_fault!(large::work(true, move || compile(&text)).await?);
        let looks: Vec<_> = manifest.modules.iter().map(|module| check_file(&guest, &module.path)).collect();
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS);
        while let Some(found) = looks.next().await {
            or_fault!(found?);
        }
        drop(looks);
        let manifest = Arc::new(manifest);
        let loaded = self.have_loaded(id, &guest, &manifest).await;
        // By now the agent has taken the offer, and refuses whatever is declared no more. Consumers still have proxies of it.
        if !matches!(loaded, Ok(Ok(())))
            && let Some(before) = provider.current()
            && let Err(error) = guest.offer(&offer(&before.manifest), OFFER_LIMIT).await
        {
            tracing::warn!(vm = %id, %error, "a provider does not offer what it did before its new manifest failed");
        }
        or_fault!(loaded?);
        Ok(Ok(Arc::new(Contract { manifest, checkers, guest: guest.clone() })))
    }

    /// Has a provider's agent load what its manifest declares.
    async fn have_loaded(
        &self,
        id: VmId,
        guest: &GuestClient,
        manifest: &Arc<Manifest>,
    ) -> Result<Result<(), ProviderFault>> {
        let strikes = self.strikes(id).await?;
        let offered = guest.offer(&offer(manifest), OFFER_LIMIT).await?;
        let Some(first) = offered.uncallable.into_iter().next() else { return Ok(Ok(())) };
        let (manifest, strikers) = (Arc::clone(manifest), strikes.and(&strikes));
        let complaint = large::work(is_large(&first), move || uncallable(&manifest, &first, &strikers)).await?;
        let fault = complaint.map(|(fault, strikes)| {
            if strikes > 0 {
                tracing::warn!(provider = %id, strikes, "secrets were struck out of the error of a module");
            }
            fault
        });
        fault.map(Err).ok_or_else(|| Error::BadGateway("The VM's agent answered nonsense".into()))
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

fn compile(text: &[u8]) -> Result<(Manifest, Checkers), ProviderFault> {
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

/// The agent's complaint in the words of the contract, and how many secrets were struck out of it; `None` if it is about
/// something that was not offered.
fn uncallable(
    manifest: &Manifest,
    complaint: &Uncallable,
    strikers: &[Arc<Striker>],
) -> Option<(ProviderFault, usize)> {
    let path = ModulePath::from_absolute(&complaint.path).ok()?;
    let module = manifest.module(path.as_str())?;
    let export = module.export(&complaint.export)?.name.clone();
    let mut strikes = 0;
    let reason = strikers.iter().fold(complaint.reason.clone(), |reason, striker| {
        let struck = striker.text(&reason);
        strikes += struck.strikes;
        struck.value
    });
    let reason = short(&reason);
    Some((ProviderFault::NotCallable { export, module: module.path.clone(), reason }, strikes))
}

/// A guest's words, fit to be shown.
fn short(words: &str) -> String {
    const LONGEST: usize = 500;
    words.chars().filter(|c| !c.is_control() || *c == '\n').take(LONGEST).collect()
}

//! Another `VM_SECRET_KEY`: the secrets of every VM and webhook are opened with the old one and sealed with the new one.
//!
//! It works on the database while no server does, because a server keeps what is sealed in memory. VMs may go on running:
//! their agents have their secrets. All secrets are opened before any is written, and all are written in one transaction,
//! so that whatever goes wrong, one of the two keys opens all of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::Sealer;
use crate::app::open_store;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::storage;
use crate::store::Store;
use crate::store::secrets::{Kind, Resealed, SealedRow};
use crate::webhooks;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rekeyed {
    /// VMs and webhooks whose secrets are sealed anew.
    pub changed: usize,
    /// Those whose secrets were sealed with the new key already.
    pub already: usize,
}

/// Seals the secrets of all VMs and webhooks with `VM_SECRET_KEY`; those that are not, were sealed with `old`.
pub async fn rekey(config: &Config, old: &SecretString) -> Result<Rekeyed> {
    let missing = || Error::invalid("VM_SECRET_KEY is not set: it is the key that the secrets are to be sealed with");
    let new = Sealer::new(config.auth.vm_secret_key.as_ref().ok_or_else(missing)?)?;
    let old = Sealer::new(old)?;
    let _lock = storage::lock(&config.storage.storage_root)?;
    let store = open_store(config).await?;
    let done = reseal(&store, &old, &new).await;
    store.close().await;
    done
}

async fn reseal(store: &Store, old: &Sealer, new: &Sealer) -> Result<Rekeyed> {
    let rows = store.sealed_secrets().await?;
    let all = rows.len();
    let mut resealed = Vec::new();
    for before in rows {
        if let Some(secrets) = again(&before, old, new)? {
            resealed.push(Resealed { before, secrets });
        }
    }
    store.reseal(&resealed).await?;
    Ok(Rekeyed { changed: resealed.len(), already: all - resealed.len() })
}

/// The secrets sealed with the new key; `None` if they are already.
fn again(row: &SealedRow, old: &Sealer, new: &Sealer) -> Result<Option<String>> {
    let refuse =
        |why: &str| Error::Conflict(format!("the secrets of {} {} {why}; nothing was changed", row.kind, row.id));
    let holder = match row.kind {
        Kind::Vm => row.id.clone(),
        Kind::Webhook => webhooks::holder(&row.id),
    };
    let sealed = STANDARD.decode(&row.secrets).map_err(|_| refuse("are damaged"))?;
    if new.has_sealed(&sealed) {
        return new.open_for(&holder, &sealed).map(|_| None).map_err(|_| refuse("are damaged"));
    }
    if !old.has_sealed(&sealed) {
        return Err(refuse("were sealed neither with the old key nor with the new one"));
    }
    let secrets = old.open_for(&holder, &sealed).map_err(|_| refuse("are damaged"))?;
    Ok(Some(STANDARD.encode(new.seal_for(&holder, &secrets)?)))
}

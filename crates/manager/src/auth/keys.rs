//! API keys: `rds_<12 hex>_<secret>`. The first two parts find the row, the secret proves the right to it.

use ctutils::CtEq as _;
use rand::random;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Auth, Principal, random_secret};
use crate::clock::now_ms;
use crate::error::{Error, Result};
use crate::store::api_keys::ApiKeyRow;

/// `lastUsedAt` is written at most this often, so that a busy key is no write for each request.
const TOUCH_INTERVAL_MS: i64 = 60_000;

/// A key without its secret.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// UUID.
    pub id: String,
    /// For people.
    pub name: String,
    /// `rds_<12 hex>`.
    pub prefix: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// It no longer counts from here on.
    pub expires_at: Option<i64>,
    /// Since when it no longer counts.
    pub revoked_at: Option<i64>,
    /// Up to a minute behind.
    pub last_used_at: Option<i64>,
}

/// A key that was just made, with the only copy of its text.
#[derive(Debug)]
pub struct NewApiKey {
    /// What is kept.
    pub key: ApiKey,
    /// The whole key, for the caller.
    pub secret: SecretString,
}

impl From<ApiKeyRow> for ApiKey {
    fn from(row: ApiKeyRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            prefix: row.prefix,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        }
    }
}

impl Auth {
    /// Makes a key. `expires_at` is in milliseconds since 1970 and must lie ahead.
    pub async fn create_api_key(&self, name: &str, expires_at: Option<i64>) -> Result<NewApiKey> {
        let now = now_ms();
        let name = name.trim();
        if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err(Error::invalid("name must be 1 to 200 characters"));
        }
        if expires_at.is_some_and(|time| time <= now) {
            return Err(Error::invalid("expiresAt must lie in the future"));
        }
        let prefix = format!("rds_{}", hex::encode(random::<[u8; 6]>()));
        let secret = random_secret();
        let salt = hex::encode(random::<[u8; 16]>());
        let row = ApiKeyRow {
            id: Uuid::new_v4().to_string(),
            name: name.to_owned(),
            hash: hash(&salt, &secret),
            salt,
            created_at: now,
            expires_at,
            revoked_at: None,
            last_used_at: None,
            prefix: prefix.clone(),
        };
        self.store.insert_api_key(&row).await?;
        Ok(NewApiKey { key: row.into(), secret: format!("{prefix}_{secret}").into() })
    }

    /// All keys, newest first, with those that no longer count.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        Ok(self.store.api_keys().await?.into_iter().map(ApiKey::from).collect())
    }

    /// From now on the key is refused. Does nothing to a key that was revoked before.
    pub async fn revoke_api_key(&self, id: &str) -> Result<()> {
        if self.store.revoke_api_key(id, now_ms()).await? {
            return Ok(());
        }
        Err(Error::not_found("API key not found"))
    }

    pub(super) async fn by_stored_key(&self, key: &str) -> Result<Option<Principal>> {
        let Some((prefix, secret)) = split(key) else { return Ok(None) };
        let Some(row) = self.store.api_key_by_prefix(&prefix).await? else { return Ok(None) };
        let now = now_ms();
        let right = hash(&row.salt, secret).as_bytes().ct_eq(row.hash.as_bytes()).to_bool();
        if !right || row.revoked_at.is_some() || row.expires_at.is_some_and(|time| time <= now) {
            return Ok(None);
        }
        // A last use that is still to come is of before the clock was set back.
        if row.last_used_at.is_none_or(|last| last > now || last + TOUCH_INTERVAL_MS <= now)
            && let Err(error) = self.store.touch_api_key(&row.id, now).await
        {
            tracing::warn!(%error, "cannot note the use of an API key");
        }
        Ok(Some(Principal::ApiKey { id: row.id }))
    }
}

/// The prefix and the secret of a key that has the right form.
fn split(key: &str) -> Option<(String, &str)> {
    let (word, secret) = key.strip_prefix("rds_")?.split_once('_')?;
    let well_formed = word.len() == 12 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (well_formed && !secret.is_empty()).then(|| (format!("rds_{word}"), secret))
}

fn hash(salt: &str, secret: &str) -> String {
    hex::encode(Sha256::new().chain_update(salt).chain_update(secret).finalize())
}

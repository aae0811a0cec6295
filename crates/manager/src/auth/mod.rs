//! Who is asking: API keys and sessions.
//!
//! This module decides whether a key, a password or a session counts. It must not know HTTP: headers and cookies are
//! `api::auth`'s business.

mod keys;
mod password;
mod sessions;

use std::sync::Arc;

use ctutils::CtEq as _;
use rand::random;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

pub use keys::{ApiKey, NewApiKey};
pub use sessions::NewSession;

use crate::config::AuthConfig;
use crate::error::Result;
use crate::store::Store;
use password::AdminPassword;

/// Somebody whom the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Whoever has the key of the configuration.
    ConfiguredKey,
    /// Whoever has a key that was made through the API.
    ApiKey {
        /// The key's id.
        id: String,
    },
    /// Somebody who signed in.
    Session {
        /// As what.
        email: String,
    },
}

impl Principal {
    /// A name that no other principal has, for limits and logs.
    pub fn name(&self) -> String {
        match self {
            Self::ConfiguredKey => "key:configured".into(),
            Self::ApiKey { id } => format!("key:{id}"),
            Self::Session { email } => format!("session:{email}"),
        }
    }
}

/// The service.
#[derive(Debug)]
pub struct Auth {
    store: Store,
    api_key: Option<SecretString>,
    admin: Option<Arc<AdminPassword>>,
    session_ttl_ms: i64,
    login_turn: Arc<tokio::sync::Mutex<()>>,
}

impl Auth {
    /// Hashes the configured password; takes some 30 ms.
    pub fn new(config: &AuthConfig, store: Store) -> Result<Self> {
        let admin = match (&config.admin_email, &config.admin_password) {
            (Some(email), Some(password)) => Some(Arc::new(AdminPassword::new(email, password)?)),
            _ => None,
        };
        if config.api_key.is_none() && admin.is_none() {
            tracing::warn!(
                "neither API_KEY nor ADMIN_EMAIL and ADMIN_PASSWORD are set: only keys made earlier are accepted"
            );
        }
        Ok(Self {
            store,
            api_key: config.api_key.clone(),
            admin,
            session_ttl_ms: i64::from(config.session_ttl_seconds) * 1000,
            login_turn: Arc::default(),
        })
    }

    /// Whose key it is, if it counts now.
    pub async fn by_key(&self, key: &str) -> Result<Option<Principal>> {
        if self.api_key.as_ref().is_some_and(|own| same_secret(own.expose_secret(), key)) {
            return Ok(Some(Principal::ConfiguredKey));
        }
        self.by_stored_key(key).await
    }
}

/// Compares in a time that tells nothing about how much of the secret was right, nor about its length.
fn same_secret(a: &str, b: &str) -> bool {
    Sha256::digest(a).ct_eq(&Sha256::digest(b)).to_bool()
}

/// 256 random bits, for secrets that nobody has to type.
fn random_secret() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random::<[u8; 32]>())
}

#[cfg(test)]
mod tests;

//! Sessions of people who signed in with a password.

use std::sync::Arc;

use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use super::{Auth, Principal, hex, random_secret};
use crate::clock::now_ms;
use crate::error::{Error, Result};

/// A session that has just begun.
#[derive(Debug)]
pub struct NewSession {
    /// Who signed in.
    pub email: String,
    /// What the browser sends from now on.
    pub token: SecretString,
    /// How long it counts, in seconds.
    pub max_age: i64,
}

impl Auth {
    /// Signs somebody in. One at a time, so that many attempts at once cannot take the machine's memory.
    pub async fn login(&self, email: &str, password: SecretString) -> Result<NewSession> {
        let refused = || Error::Unauthorized("Invalid credentials");
        let Some(admin) = self.admin.clone() else { return Err(refused()) };
        let right = {
            let _turn = self.login_turn.lock().await;
            let (admin, email) = (Arc::clone(&admin), email.to_owned());
            tokio::task::spawn_blocking(move || admin.verify(&email, &password))
                .await
                .map_err(|error| Error::internal("the password check failed", error))?
        };
        if !right {
            return Err(refused());
        }
        let token = random_secret();
        let now = now_ms();
        self.store.insert_session(&hash(&token), admin.email(), now, now + self.session_ttl_ms).await?;
        Ok(NewSession { email: admin.email().to_owned(), token: token.into(), max_age: self.session_ttl_ms / 1000 })
    }

    /// Whose session it is, if it counts now. A session ends when its administrator is no longer configured.
    pub async fn by_session(&self, token: &str) -> Result<Option<Principal>> {
        let email = self.store.session_email(&hash(token), now_ms()).await?;
        let current = |email: &String| self.admin.as_ref().is_some_and(|admin| admin.email() == email);
        Ok(email.filter(current).map(|email| Principal::Session { email }))
    }

    /// Ends a session. Does nothing if there is none.
    pub async fn logout(&self, token: &str) -> Result<()> {
        self.store.delete_session(&hash(token)).await
    }
}

/// The token holds 256 random bits: it needs no salt.
fn hash(token: &str) -> String {
    hex(&Sha256::digest(token))
}

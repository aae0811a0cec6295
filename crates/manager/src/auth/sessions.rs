//! Sessions of people who signed in with a password.

use std::sync::Arc;

use secrecy::SecretString;

use super::{Auth, Principal, random_secret};
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
        let turn = Arc::clone(&self.login_turn).lock_owned().await;
        let (checks, email) = (Arc::clone(&admin), email.to_owned());
        let check = tokio::task::spawn_blocking(move || {
            let right = checks.verify(&email, &password);
            // Not before: a client that hangs up does not end the check.
            drop(turn);
            right
        });
        if !check.await.map_err(|error| Error::internal("the password check failed", error))? {
            return Err(refused());
        }
        let token = random_secret();
        let now = now_ms();
        self.store.insert_session(&admin.session(&token), admin.email(), now, now + self.session_ttl_ms).await?;
        Ok(NewSession { email: admin.email().to_owned(), token: token.into(), max_age: self.session_ttl_ms / 1000 })
    }

    /// Whose session it is, if it counts now. A session ends when another administrator or password is configured.
    pub async fn by_session(&self, token: &str) -> Result<Option<Principal>> {
        let Some(admin) = &self.admin else { return Ok(None) };
        let email = self.store.session_email(&admin.session(token), now_ms()).await?;
        Ok(email.map(|email| Principal::Session { email }))
    }

    /// Ends a session. Does nothing if there is none.
    pub async fn logout(&self, token: &str) -> Result<()> {
        let Some(admin) = &self.admin else { return Ok(()) };
        self.store.delete_session(&admin.session(token)).await
    }
}

//! The administrator's password: kept as an Argon2id hash, compared in constant time.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use secrecy::{ExposeSecret as _, SecretString};

use super::same_secret;
use crate::error::{Error, Result};

/// Who may sign in, and with what.
#[derive(Debug)]
pub(super) struct AdminPassword {
    email: String,
    hash: PasswordHash,
}

impl AdminPassword {
    pub(super) fn new(email: &str, password: &SecretString) -> Result<Self> {
        let hash = Argon2::default()
            .hash_password(password.expose_secret().as_bytes())
            .map_err(|error| Error::internal("cannot hash ADMIN_PASSWORD", error.to_string()))?;
        Ok(Self { email: email.trim().to_owned(), hash })
    }

    pub(super) fn email(&self) -> &str {
        &self.email
    }

    /// Takes 19 MiB and some 30 ms, for a wrong address just as for a wrong password.
    pub(super) fn verify(&self, email: &str, password: &SecretString) -> bool {
        let email_is_right = same_secret(&self.email.to_lowercase(), &email.trim().to_lowercase());
        let password_is_right =
            Argon2::default().verify_password(password.expose_secret().as_bytes(), &self.hash).is_ok();
        email_is_right & password_is_right
    }
}

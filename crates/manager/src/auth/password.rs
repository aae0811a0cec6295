//! The administrator's password: kept as an Argon2id hash, compared in constant time.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
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
        let hash = hasher()?
            .hash_password(password.expose_secret().as_bytes())
            .map_err(|error| Error::internal("cannot hash ADMIN_PASSWORD", error.to_string()))?;
        Ok(Self { email: email.trim().to_owned(), hash })
    }

    pub(super) fn email(&self) -> &str {
        &self.email
    }

    /// Takes 7 MiB and some 30 ms, for a wrong address just as for a wrong password.
    pub(super) fn verify(&self, email: &str, password: &SecretString) -> bool {
        let email_is_right = same_secret(&self.email.to_lowercase(), &email.trim().to_lowercase());
        let verify =
            |hasher: Argon2<'_>| hasher.verify_password(password.expose_secret().as_bytes(), &self.hash).is_ok();
        let password_is_right = hasher().is_ok_and(verify);
        email_is_right & password_is_right
    }
}

/// Argon2id with the least memory that OWASP's password storage recommendations have: what a hash took stays with the
/// process for long.
fn hasher() -> Result<Argon2<'static>> {
    let params = Params::new(7 * 1024, 5, 1, None)
        .map_err(|error| Error::internal("cannot set up password hashing", error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

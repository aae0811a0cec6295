//! The administrator's password: compared in constant time by an Argon2id hash. Sessions are bound to it.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

use super::same_secret;
use crate::error::{Error, Result};

/// Who may sign in, and with what.
#[derive(Debug)]
pub(super) struct AdminPassword {
    email: String,
    password: SecretString,
    hash: PasswordHash,
}

impl AdminPassword {
    pub(super) fn new(email: &str, password: &SecretString) -> Result<Self> {
        let hash = hasher()?
            .hash_password(password.expose_secret().as_bytes())
            .map_err(|error| Error::internal("cannot hash ADMIN_PASSWORD", error.to_string()))?;
        Ok(Self { email: email.trim().to_owned(), password: password.clone(), hash })
    }

    pub(super) fn email(&self) -> &str {
        &self.email
    }

    /// What is kept of a session with this token. It is that of this administrator and this password alone, and tells
    /// nothing of them: the key is the token, 256 random bits that are kept nowhere.
    pub(super) fn session(&self, token: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("a key has any length");
        for part in [self.email.as_bytes(), &[0], self.password.expose_secret().as_bytes()] {
            mac.update(part);
        }
        hex::encode(mac.finalize().into_bytes())
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

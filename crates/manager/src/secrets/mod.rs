//! Secrets of VMs: sealed at rest, opened only to be handed to the VM's own agent, and struck out of logs. The same key
//! seals what webhooks sign with.

mod rekey;

pub use rekey::{Rekeyed, rekey};

use std::collections::BTreeMap;
use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use rds_vmm::VmId;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// First byte of everything sealed; another layout gets another one.
const LAYOUT: u8 = 1;
const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;

/// Keeps the key apart from any other that is derived from the same words. Not secret, and the same everywhere, so that
/// a database can be moved together with its `VM_SECRET_KEY` alone.
const SALT: &[u8] = b"run-dat-sheesh vm secrets 1";

/// Keeps what fingerprints are made with apart from what seals.
const FINGERPRINTS: &[u8] = b"run-dat-sheesh fingerprints of secrets 1";

/// Bytes of all names and values of one VM together.
const MAX_BYTES: usize = 48 * 1024;

/// The environment of a VM's secrets, in clear. Wiped from memory when it is dropped; never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretEnv(BTreeMap<String, String>);

impl SecretEnv {
    /// Reads `NAME=value` pairs. Of a name that is there twice the last one counts.
    pub fn parse(pairs: Vec<String>) -> Result<Self> {
        let mut env = Self::default();
        for pair in pairs.into_iter().map(Zeroizing::new) {
            // The pair itself must not be in the message.
            let (name, value) =
                pair.split_once('=').ok_or_else(|| Error::invalid("secretEnv: every entry must be NAME=value"))?;
            if !is_name(name) {
                return Err(Error::invalid("secretEnv: names match [A-Za-z_][A-Za-z0-9_]*"));
            }
            if value.contains('\0') {
                return Err(Error::Invalid(format!("secretEnv: the value of {name} has a NUL character")));
            }
            env.0.insert(name.to_owned(), value.to_owned());
        }
        let bytes: usize = env.0.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MAX_BYTES {
            return Err(Error::Invalid(format!("secretEnv: more than {MAX_BYTES} bytes")));
        }
        Ok(env)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The variables, for the VM's agent.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.0.clone()
    }

    /// The values, to be struck out.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }
}

/// Whether a text can be the name of an environment variable in a POSIX shell.
pub fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}

impl fmt::Debug for SecretEnv {
    /// Names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Drop for SecretEnv {
    fn drop(&mut self) {
        self.0.values_mut().for_each(Zeroize::zeroize);
    }
}

/// Seals and opens with a key derived from `VM_SECRET_KEY` by Argon2id.
///
/// Sealed bytes: layout (1), key id (4), nonce (24), XChaCha20-Poly1305 ciphertext with the holder as associated data, which
/// is the VM's id. What was sealed for one VM cannot be opened for another, nor for a webhook.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    fingerprints: Hmac<Sha256>,
    key_id: [u8; KEY_ID_BYTES],
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Derives the key, which takes some 50 ms and 19 MiB for a moment (the parameters that OWASP recommends).
    pub fn new(secret: &SecretString) -> Result<Self> {
        let failed =
            |error: argon2::Error| Error::internal("cannot derive a key from VM_SECRET_KEY", error.to_string());
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
        let mut derived = Zeroizing::new([0; KEY_BYTES + KEY_ID_BYTES]);
        argon.hash_password_into(secret.expose_secret().as_bytes(), SALT, &mut *derived).map_err(failed)?;
        let (key, id) = derived.split_at(KEY_BYTES);
        let cipher =
            XChaCha20Poly1305::new_from_slice(key).map_err(|error| Error::internal("bad key", error.to_string()))?;
        let fingerprints = keyed(&keyed(key).chain_update(FINGERPRINTS).finalize().into_bytes());
        let mut key_id = [0; KEY_ID_BYTES];
        key_id.copy_from_slice(id);
        Ok(Self { cipher, fingerprints, key_id })
    }

    /// What is the same for the same `NAME=value` pairs and tells nothing about them without the key: it may be kept.
    pub fn fingerprint(&self, pairs: &[String]) -> [u8; 32] {
        // Lengths go in front, so that no two lists are the same bytes.
        let hashed = pairs.iter().fold(self.fingerprints.clone(), |hashed, pair| {
            hashed.chain_update((pair.len() as u64).to_be_bytes()).chain_update(pair)
        });
        hashed.finalize().into_bytes().into()
    }

    /// Seals a VM's secrets.
    pub fn seal(&self, vm: VmId, env: &SecretEnv) -> Result<Vec<u8>> {
        let failed = |error: serde_json::Error| Error::internal("cannot seal a VM's secrets", error.to_string());
        let plain = Zeroizing::new(serde_json::to_vec(&env.0).map_err(failed)?);
        self.seal_for(&vm.to_string(), &plain)
    }

    /// Seals what belongs to one holder. Nonces are random: XChaCha20's are long enough for that.
    pub(crate) fn seal_for(&self, holder: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: plain, aad: holder.as_bytes() };
        let failed = |error: chacha20poly1305::Error| Error::internal("cannot seal secrets", error.to_string());
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(failed)?;
        Ok([&[LAYOUT][..], &self.key_id, &nonce, &sealed].concat())
    }

    /// Whether this key sealed it, as far as it says so itself.
    fn has_sealed(&self, sealed: &[u8]) -> bool {
        sealed.get(1..=KEY_ID_BYTES) == Some(&self.key_id)
    }

    /// Opens what was sealed for this VM.
    pub fn open(&self, vm: VmId, sealed: &[u8]) -> Result<SecretEnv> {
        let failed = |why: &str| Error::internal(format!("cannot open the secrets of VM {vm}"), why.to_owned());
        let plain = self.open_for(&vm.to_string(), sealed).map_err(failed)?;
        serde_json::from_slice(&plain).map(SecretEnv).map_err(|_| failed("they are not what was sealed"))
    }

    /// Opens what was sealed for this holder, or says why not.
    pub(crate) fn open_for(&self, holder: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let (&layout, rest) = sealed.split_first().ok_or("there is nothing")?;
        let (key_id, rest) = rest.split_at_checked(KEY_ID_BYTES).ok_or("they are cut off")?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or("they are cut off")?;
        if layout != LAYOUT {
            return Err("they have a layout that this version does not know");
        }
        if key_id != self.key_id {
            return Err("they were sealed with another VM_SECRET_KEY; `rds secrets rekey` seals them anew");
        }
        let payload = Payload { msg: sealed, aad: holder.as_bytes() };
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| "they were changed")?;
        Ok(Zeroizing::new(plain))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of every length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(secret: &str) -> Sealer {
        Sealer::new(&SecretString::from(secret)).unwrap()
    }

    fn env() -> SecretEnv {
        SecretEnv::parse(vec!["TOKEN=hunter2".into(), "PEM=a\nb=c".into()]).unwrap()
    }

    #[test]
    fn what_is_sealed_for_a_vm_is_opened_for_it_alone() {
        let (sealer, vm) = (sealer("words"), VmId::new());
        let sealed = sealer.seal(vm, &env()).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(sealer.open(vm, &sealed).unwrap(), env());
        assert!(sealer.open(VmId::new(), &sealed).is_err());
        assert_ne!(sealed, sealer.seal(vm, &env()).unwrap(), "every nonce is new");
    }

    #[test]
    fn fingerprints_are_of_the_pairs_and_the_key() {
        let (one, other) = (sealer("words"), sealer("other words"));
        let print = |sealer: &Sealer, pairs: &[&str]| {
            sealer.fingerprint(&pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>())
        };
        let first = print(&one, &["A=1", "B=2"]);
        assert_eq!(first, print(&sealer("words"), &["A=1", "B=2"]), "after a restart too");
        for pairs in [&["A=1", "B=3"][..], &["A=1B=2"], &["A=1"], &["B=2", "A=1"], &[]] {
            assert_ne!(first, print(&one, pairs), "{pairs:?}");
        }
        assert_ne!(first, print(&other, &["A=1", "B=2"]));
    }

    #[test]
    fn what_was_changed_or_sealed_with_another_key_is_not_opened() {
        let (first, vm) = (sealer("words"), VmId::new());
        let sealed = first.seal(vm, &env()).unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(first.open(vm, &changed).is_err(), "byte {index}");
            assert!(first.open(vm, &sealed[..index]).is_err(), "cut at {index}");
        }
        let error = sealer("other words").open(vm, &sealed).unwrap_err();
        assert!(crate::error::Chain(&error).to_string().contains("another VM_SECRET_KEY"));
    }

    #[test]
    fn bad_pairs_are_refused_without_being_repeated() {
        for bad in ["hunter2", "=hunter2", "A B=hunter2", "1A=hunter2", "A\n=hunter2", "A=hunter2\0"] {
            let error = SecretEnv::parse(vec![bad.into()]).unwrap_err();
            assert!(matches!(&error, Error::Invalid(message) if !message.contains("hunter2")), "{bad:?}");
        }
        assert!(SecretEnv::parse(vec![format!("A={}", "x".repeat(MAX_BYTES))]).is_err());
    }

    #[test]
    fn values_are_never_shown() {
        assert_eq!(format!("{:?}", env()), r#"{"PEM", "TOKEN"}"#);
    }
}

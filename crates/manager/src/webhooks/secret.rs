//! What deliveries are signed with, in the format of Standard Webhooks: `whsec_` and 24 to 64 bytes in base64.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::random;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::secrets::Sealer;

const PREFIX: &str = "whsec_";
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that makes sense.
#[derive(Clone)]
pub(crate) struct Secret {
    text: SecretString,
    key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// 256 random bits.
    pub(super) fn new() -> Self {
        let key = Zeroizing::new(random::<[u8; 32]>().to_vec());
        Self { text: format!("{PREFIX}{}", STANDARD.encode(&*key)).into(), key }
    }

    /// Reads one that was given or kept.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let key = text.strip_prefix(PREFIX).and_then(|key| STANDARD.decode(key).ok()).map(Zeroizing::new);
        let key = key.filter(|key| BYTES.contains(&key.len()));
        let wrong = || Error::invalid("secret must be whsec_ followed by 24 to 64 bytes in base64");
        Ok(Self { text: text.into(), key: key.ok_or_else(wrong)? })
    }

    /// For whoever may see it.
    pub(super) fn text(&self) -> &SecretString {
        &self.text
    }

    /// How the store keeps it, and 1 if that is sealed.
    pub(super) fn keep(&self, webhook: &str, sealer: Option<&Sealer>) -> Result<(String, i64)> {
        let text = self.text.expose_secret();
        Ok(match sealer {
            Some(sealer) => (STANDARD.encode(sealer.seal_for(&holder(webhook), text.as_bytes())?), 1),
            None => (text.to_owned(), 0),
        })
    }

    /// What the store kept, or why it is of no use.
    pub(super) fn open(webhook: &str, kept: &str, sealed: bool, sealer: Option<&Sealer>) -> Result<Self, &'static str> {
        if !sealed {
            return Self::parse(kept).map_err(|_| "it is damaged");
        }
        let sealer = sealer.ok_or("VM_SECRET_KEY is not set")?;
        let kept = STANDARD.decode(kept).map_err(|_| "it is damaged")?;
        let plain = sealer.open_for(&holder(webhook), &kept)?;
        std::str::from_utf8(&plain).ok().and_then(|text| Self::parse(text).ok()).ok_or("it is damaged")
    }

    /// The header `webhook-signature`. `timestamp` is in seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of every length");
        let mac = mac.chain_update(format!("{id}.{timestamp}.")).chain_update(body).finalize();
        format!("v1,{}", STANDARD.encode(mac.into_bytes()))
    }
}

/// Whose secret it is, to whatever seals it: no VM has such an id.
pub(crate) fn holder(webhook: &str) -> String {
    format!("webhook {webhook}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_specification() {
        // The example of the Standard Webhooks specification's libraries.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_repeated() {
        for bad in ["", "hunter2", "whsec_", "whsec_aHVudGVyMg==", "whsec_????", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let error = Secret::parse(bad).unwrap_err();
            assert!(bad.is_empty() || !error.to_string().contains(bad) || bad == "whsec_", "{error}");
        }
        let made = Secret::new();
        assert!(Secret::parse(made.text().expose_secret()).is_ok());
        assert!(!format!("{made:?}").contains("whsec_"));
    }

    #[test]
    fn it_is_sealed_for_one_webhook_where_there_is_a_key() {
        let (secret, sealer) = (Secret::new(), Sealer::new(&SecretString::from("words")).unwrap());
        let (kept, sealed) = secret.keep("a", Some(&sealer)).unwrap();
        assert!(sealed == 1 && !kept.contains("whsec_"));
        let opened = Secret::open("a", &kept, true, Some(&sealer)).unwrap();
        assert_eq!(opened.text().expose_secret(), secret.text().expose_secret());
        assert!(Secret::open("b", &kept, true, Some(&sealer)).is_err());
        assert_eq!(Secret::open("a", &kept, true, None).unwrap_err(), "VM_SECRET_KEY is not set");
        let (kept, sealed) = secret.keep("a", None).unwrap();
        assert!(sealed == 0 && Secret::open("a", &kept, false, Some(&sealer)).is_ok());
    }
}

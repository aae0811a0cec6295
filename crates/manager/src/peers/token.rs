//! The bearer token of one start of a consumer. Its agent knows the token; the database knows its hash.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ctutils::CtEq as _;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const BYTES: usize = 32;

/// A token that was just made, or one of which only the hash is known: the manager that made it has ended.
#[derive(Clone)]
pub(crate) struct BridgeToken {
    secret: Option<Zeroizing<String>>,
    hash: [u8; 32],
}

impl BridgeToken {
    /// A new one.
    pub(crate) fn new() -> Self {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; BYTES]>()));
        Self { hash: hash(&secret), secret: Some(secret) }
    }

    /// One from its hash.
    pub(crate) fn from_hash(digits: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok()?;
        Some(Self { secret: None, hash })
    }

    /// The token, if it is known.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.secret.as_ref().map(|secret| secret.as_str())
    }

    /// Its hash in hex.
    pub(crate) fn hash_hex(&self) -> String {
        hex::encode(self.hash)
    }

    /// Whether `given` is this token; takes the same time whatever it is.
    pub(crate) fn is(&self, given: &str) -> bool {
        hash(given).ct_eq(&self.hash).to_bool()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl fmt::Debug for BridgeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeToken").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash() {
        let token = BridgeToken::new();
        let secret = token.secret().unwrap().to_owned();
        let known = BridgeToken::from_hash(&token.hash_hex()).unwrap();
        assert!(token.is(&secret) && known.is(&secret));
        assert!(!known.is("") && !known.is(BridgeToken::new().secret().unwrap()));
        assert!(!format!("{token:?}").contains(&secret));
        assert!(BridgeToken::from_hash("zz").is_none());
    }
}

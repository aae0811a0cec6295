//! What can be wrong with a provider, in words that its author can act on.

use std::fmt;

use thiserror::Error;

use super::{Alias, ExportName, MANIFEST_PATH, ModulePath};
use crate::json::JsonError;

/// One rule that the manifest breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) to the place; empty for the whole document.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All rules that the manifest breaks, in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// The first of them, at most [`Faults::SHOWN`].
    pub shown: Vec<Fault>,
    /// How many more there are.
    pub more: usize,
}

impl Faults {
    /// A message names at most so many faults: enough to work with, and bounded however bad the manifest.
    pub const SHOWN: usize = 20;

    pub(super) fn add(&mut self, pointer: String, message: impl Into<String>) {
        if self.shown.len() < Self::SHOWN {
            self.shown.push(Fault { pointer, message: message.into() });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { pointer, message }) in self.shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let place = if pointer.is_empty() { "the document" } else { pointer };
            write!(f, "{separator}{place}: {message}")?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Why a provider cannot be linked. All but [`ProviderFault::NotRunning`] are answered with 400, that one with 409.
///
/// The texts of [`ProviderFault::MissingManifest`] and [`ProviderFault::NotCallable`] are part of the wire contract.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProviderFault {
    /// There is no manifest.
    #[error("missing provider manifest: the provider has no file {MANIFEST_PATH}")]
    MissingManifest,
    /// The manifest is a link, a fifo, a directory, or cannot be read.
    #[error("unreadable provider manifest: {MANIFEST_PATH} must be a plain file")]
    UnreadableManifest,
    /// The manifest is no JSON, or JSON beyond the limits.
    #[error("invalid provider manifest: {0}")]
    NotJson(#[from] JsonError),
    /// The manifest breaks rules.
    #[error("invalid provider manifest: {0}")]
    Invalid(Faults),
    /// A declared module is no file in the provider.
    #[error("declared module {0} is not a file in the provider's /workspace")]
    MissingModule(ModulePath),
    /// A declared export is no function once its module is loaded, or the module cannot be loaded.
    #[error("declared export {export} is not callable in module {module}: {reason}")]
    NotCallable {
        /// The export.
        export: ExportName,
        /// Its module.
        module: ModulePath,
        /// What it is instead, or the error that loading the module threw.
        reason: String,
    },
    /// A sync would put too many bytes into the consumer.
    #[error("invalid provider manifest: the proxies, the guide and the manifest itself have more than {mib} MiB")]
    LargeTree {
        /// The limit in MiB.
        mib: usize,
    },
    /// The provider is not running.
    #[error("provider VM is not running (state {0}); start it first")]
    NotRunning(String),
}

impl ProviderFault {
    /// The message as clients get it: `Peer alias X: …`.
    pub fn for_alias(&self, alias: &Alias) -> String {
        format!("Peer alias {alias}: {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_that_clients_look_for() {
        let alias = Alias::new("mail").unwrap();
        let missing = ProviderFault::MissingManifest.for_alias(&alias);
        assert!(missing.starts_with("Peer alias mail: missing provider manifest"), "{missing}");
        let (export, module) = (ExportName::new("send").unwrap(), ModulePath::new("sdk/mail.ts").unwrap());
        let text = ProviderFault::NotCallable { export, module, reason: "it is a number".into() }.for_alias(&alias);
        assert!(text.starts_with("Peer alias mail: declared export send is not callable"), "{text}");
    }

    #[test]
    fn a_message_stays_bounded() {
        let mut faults = Faults::default();
        (0..1000).for_each(|n| faults.add(format!("/modules/{n}"), "is wrong"));
        assert!(faults.to_string().ends_with("/modules/19: is wrong; and 980 more"));
    }
}

//! Calls from a consumer's code to a provider's, as far as the agents take part in them.
//!
//! In a **consumer** the agent answers on loopback and passes on to the manager what it is asked, over the channel that
//! leads out ([`crate::PORT_OUT`]); the manager knows the consumer by that channel. In a **provider** the agent runs one
//! long-lived worker per runtime and hands it calls that the manager has checked. Neither agent decides anything.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Path, on loopback in a consumer and on the channel out of it alike, to which its code sends calls. `POST` with a JSON
/// object of at most [`CALL_BYTES`]; the reply's status and body come from the manager unchanged.
pub const INVOKE: &str = "/internal/v1/peer/invoke";

/// `peers/index.json` of a VM without peers, which the agent itself has: nothing needs to be sent to such a VM.
pub const NO_PEERS: &str = "{\n  \"peers\": []\n}\n";

/// Bytes of a call's body, and of its arguments (section 1 of the wire contract: 1 MiB).
pub const CALL_BYTES: usize = 1024 * 1024;

/// Bytes of the JSON that a call gives back.
pub const OUTCOME_BYTES: usize = 4 * 1024 * 1024;

/// Body of [`crate::routes::BRIDGE`]: from now on the agent passes on calls that carry this bearer token, and no other from the
/// next [`crate::routes::TREES`] on: until then, code has the token before.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBridge {
    /// Letters, digits, `-` and `_`; new for every start of the VM.
    pub token: String,
}

impl std::fmt::Debug for OpenBridge {
    /// Never shows the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenBridge").finish_non_exhaustive()
    }
}

/// Where the agent listens for the consumer's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// TCP port on 127.0.0.1.
    pub port: u16,
}

/// What a provider's workers may be asked for: body of [`crate::routes::OFFER`]. It replaces the last offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The modules of the provider's manifest.
    pub modules: Vec<OfferedModule>,
}

/// One module of a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedModule {
    /// Absolute path under `/workspace`. Its ending decides the runtime: `.ts`, `.mts`, `.tsx` and `.jsx` are Deno's, the
    /// others Node's.
    pub path: String,
    /// Names of its exports.
    pub exports: Vec<String>,
}

/// What came of loading the offered modules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Exports that are not there or not callable.
    pub uncallable: Vec<Uncallable>,
}

/// An export that cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncallable {
    /// The module's path.
    pub path: String,
    /// The export.
    pub export: String,
    /// Why, in the runtime's words: the error of loading the module, or what the export is instead.
    pub reason: String,
}

/// A call that the manager has checked: body of [`crate::routes::CALL`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call<Args = Box<RawValue>> {
    /// Path of an offered module.
    pub module: String,
    /// Name of one of its offered exports.
    pub export: String,
    /// Arguments: an array. As text, for a tree of them can take a hundred times the memory; each side owns or borrows it.
    pub args: Args,
    /// Time limit in milliseconds. At the limit the agent answers 504 and the call is cancelled.
    pub timeout_ms: u64,
}

/// What came of a call, with its value as a `V`: an agent keeps the text. A worker that ended meanwhile is a 502 instead, a module or export that was not offered a 409.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome<V = Value> {
    /// What the function returned, or what its promise became; `null` for what JSON has no word for.
    Returned(V),
    /// What it threw.
    Threw {
        /// The error's name.
        name: String,
        /// The error's message.
        message: String,
    },
}

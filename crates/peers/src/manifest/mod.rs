//! What a provider declares: the modules, exports and schemas of its SDK, as checked values.
//!
//! A provider keeps `/workspace/.rds-peer/manifest.json`. Its bytes are hostile. [`parse`] turns them into a
//! [`Manifest`] or into all its faults at once; everything else in this crate takes a `Manifest` and can rely on it.
//! Owns the rules of section 7 of the wire contract about that file. Must not know how the file is fetched.

mod faults;
mod names;
mod read;

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::Value;

pub use faults::{Fault, Faults, ProviderFault};
pub use names::{Alias, ExportName, ModulePath, NameError};
pub(crate) use names::{PROXY_PACKAGE, is_identifier, is_invisible, is_reserved};
pub use read::{Limits, parse};

/// Where a provider keeps its manifest.
pub const MANIFEST_PATH: &str = "/workspace/.rds-peer/manifest.json";

/// A provider's manifest that holds to every rule. Serialises as the `manifest.json` that a consumer gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The SDK as a whole.
    pub sdk: Sdk,
    /// Its modules, at least one, in the order declared; their paths are unique.
    pub modules: Vec<Module>,
}

/// What the SDK is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sdk {
    /// Its name, not empty.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// One module of the SDK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Module {
    /// Where it is.
    pub path: ModulePath,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its exports, at least one; their names are unique.
    pub exports: Vec<Export>,
}

/// One function that consumers may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Export {
    /// Its name.
    pub name: ExportName,
    /// What it does.
    pub description: String,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// What it returns, once awaited.
    pub returns: Returns,
    /// How it is used, at least one.
    pub examples: Vec<Example>,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Param {
    /// Its name; unique among the parameters, but not necessarily an identifier.
    pub name: String,
    /// What it means.
    pub description: String,
    /// A valid JSON Schema (2020-12) without references to other documents.
    pub schema: Value,
    /// Whether it may be left out at the end of a call: see [`crate::schema`].
    #[serde(skip)]
    pub optional: bool,
}

/// A return value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Returns {
    /// What it means.
    pub description: String,
    /// As [`Param::schema`].
    pub schema: Value,
}

/// One example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Example {
    /// What it shows.
    pub description: String,
    /// The code.
    pub code: String,
}

impl Manifest {
    /// The module that a call names, by its path relative to `/workspace`.
    pub fn module(&self, path: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.path.as_str() == path)
    }

    /// The text of the consumer's `manifest.json`; `None` if it has more bytes than `most`. Its lines are indented, so it may
    /// have a hundred times those of the provider's.
    pub fn to_json(&self, most: usize) -> Option<String> {
        let mut text = Bounded { bytes: Vec::new(), left: most };
        serde_json::to_writer_pretty(&mut text, self).ok()?;
        text.write_all(b"\n").ok()?;
        String::from_utf8(text.bytes).ok()
    }
}

/// Takes so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(data.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Module {
    /// The export that a call names.
    pub fn export(&self, name: &str) -> Option<&Export> {
        self.exports.iter().find(|export| export.name.as_str() == name)
    }
}

impl Serialize for ModulePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for ExportName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

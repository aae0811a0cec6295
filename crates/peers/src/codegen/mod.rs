//! What a consumer gets to see of its peers: proxies with types, a guide, an index.
//!
//! Everything is made from checked values. No text of a manifest becomes code: names are identifiers by their type,
//! everything else is a string literal, a type made of such literals, or a comment that it cannot end. Owns the layout of
//! `/workspace/peers`. Must not know how files get there.
//!
//! The proxies lie beside a `package.json` that makes them ES modules whatever the consumer's own says (`.cjs` stays
//! CommonJS). `.ts` proxies are erasable syntax only, so that Node.js runs them too. With `tsc`, a program that imports
//! them needs `allowImportingTsExtensions`, as everything that runs unbuilt does.

mod proxy;
mod readme;
mod text;
mod types;

use std::collections::HashSet;

use serde::Serialize;

use crate::manifest::{Alias, Manifest, PROXY_PACKAGE, ProviderFault};

/// Bytes of the files under one alias. A manifest as large as it may be makes half of that.
const TREE_BYTES: usize = 8 * 1024 * 1024;

/// A file that a consumer gets, to be owned by root and read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Path relative to `/workspace`, normal.
    pub path: String,
    /// Its text.
    pub contents: String,
}

impl GeneratedFile {
    pub(crate) fn new(path: impl Into<String>, contents: impl Into<String>) -> Self {
        Self { path: path.into(), contents: contents.into() }
    }
}

/// How much of a provider's files a consumer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceMode {
    /// Nothing but what is made from the manifest.
    #[default]
    Hidden,
    /// Also a copy, under `source`.
    Mounted,
}

/// One peer in `index.json`. The keys are part of the wire contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    alias: String,
    sdk_name: String,
    summary: String,
    manifest_path: String,
    readme_path: String,
    proxy_root: String,
    source_mode: SourceMode,
}

impl IndexEntry {
    /// The entry of a link.
    pub fn new(alias: &Alias, manifest: &Manifest, source_mode: SourceMode) -> Self {
        let root = format!("/workspace/peers/{alias}");
        Self {
            alias: alias.to_string(),
            sdk_name: manifest.sdk.name.clone(),
            summary: manifest.sdk.description.clone(),
            manifest_path: format!("{root}/manifest.json"),
            readme_path: format!("{root}/README.md"),
            proxy_root: format!("{root}/proxy"),
            source_mode,
        }
    }
}

#[derive(Serialize)]
struct Index<'a> {
    peers: &'a [IndexEntry],
}

/// `peers/index.json`, with the links in the order given. It is there without links, too.
pub fn index(peers: &[IndexEntry]) -> GeneratedFile {
    let json = serde_json::to_string_pretty(&Index { peers }).expect("strings serialise");
    GeneratedFile::new("peers/index.json", json + "\n")
}

/// The files under `peers/ALIAS`, all but `source`. May take seconds.
///
/// Fails if they would be larger than 8 MiB together.
pub fn peer_tree(alias: &Alias, manifest: &Manifest) -> Result<Vec<GeneratedFile>, ProviderFault> {
    let root = format!("peers/{alias}");
    let mut room = Room(TREE_BYTES);
    let mut files = Vec::new();
    let mut push = |path: String, contents: String, room: &mut Room| {
        room.take(contents.len())?;
        files.push(GeneratedFile { path, contents });
        Ok::<_, ProviderFault>(())
    };
    let json = manifest.to_json(room.0).ok_or(TOO_LARGE)?;
    push(format!("{root}/manifest.json"), json, &mut room)?;
    push(format!("{root}/README.md"), readme::readme(alias, manifest, room)?, &mut room)?;
    push(format!("{root}/proxy/{PROXY_PACKAGE}"), "{ \"type\": \"module\" }\n".to_owned(), &mut room)?;
    for module in &manifest.modules {
        let made = proxy::proxy(alias, module, room)?;
        push(format!("{root}/proxy/{}", module.path), made.code, &mut room)?;
        if let Some((extension, text)) = made.declarations {
            push(format!("{root}/proxy/{}.{extension}", module.path.stem()), text, &mut room)?;
        }
    }
    // `a.js` and `a.jsx` would share declarations: the first one's stay.
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.path.clone()));
    Ok(files)
}

const TOO_LARGE: ProviderFault = ProviderFault::LargeTree { mib: TREE_BYTES >> 20 };

/// Bytes that the files of a peer may still have.
#[derive(Debug, Clone, Copy)]
struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), ProviderFault> {
        self.0 = self.0.checked_sub(bytes).ok_or(TOO_LARGE)?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

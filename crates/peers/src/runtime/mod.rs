//! What proxies import: the files of `/workspace/.rds`.
//!
//! Owns how a consumer's code speaks to its agent. Must not know what is called.
//!
//! `peer-bridge.json` is read by a program's first call, and again when its token is not taken any more. The directory has a
//! `package.json` so that the files mean the same whatever the consumer's own package says.

use serde::Serialize;

use crate::codegen::GeneratedFile;

/// Where a consumer's calls go. Its token is worth something in that VM, until the VM's next start, alone.
#[derive(Serialize)]
pub struct Bridge {
    /// Address of the agent's bridge, such as `http://127.0.0.1:PORT/internal/v1/peer/invoke`.
    pub url: String,
    /// The bearer token.
    pub token: String,
}

impl std::fmt::Debug for Bridge {
    /// Never shows the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("url", &self.url).finish_non_exhaustive()
    }
}

/// The files of a consumer's `.rds`.
pub fn files(bridge: &Bridge) -> Vec<GeneratedFile> {
    let json = serde_json::to_string(bridge).expect("strings serialise");
    [
        ("peer-runtime.mjs", include_str!("peer-runtime.mjs")),
        ("peer-runtime.d.mts", include_str!("peer-runtime.d.mts")),
        ("peer-runtime.ts", include_str!("peer-runtime.ts")),
        ("peer-runtime.cjs", include_str!("peer-runtime.cjs")),
        ("package.json", "{ \"type\": \"module\" }\n"),
        ("peer-bridge.json", json.as_str()),
    ]
    .into_iter()
    .map(|(name, contents)| GeneratedFile::new(format!(".rds/{name}"), contents))
    .collect()
}

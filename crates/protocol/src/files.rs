//! Files of a guest, as the agent reports them.

use serde::{Deserialize, Serialize};

/// What a name refers to. Symbolic links are reported, never followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, fifo or socket.
    Other,
}

/// One file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stat {
    /// The last component of its path.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Length in bytes; 0 for anything but a regular file.
    pub size: u64,
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    /// Last change of its contents, milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// The entries of a directory, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// At most 10,000 entries.
    pub entries: Vec<Stat>,
    /// Whether the directory holds more.
    pub truncated: bool,
}

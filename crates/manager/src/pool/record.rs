//! What a pooled machine's directory says of it, so that the next server finds it again.
//!
//! It is written when the machine's agent has answered, and removed when it becomes a VM. A VM that is written down in
//! the store is a VM, whatever its directory says.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::seeds::{Key, Size};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    image_id: String,
    size: Size,
    key: String,
    disk_bytes: u64,
    host_index: u32,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("pool.json")
}

/// Writes it, all or nothing.
pub(crate) fn write(dir: &Path, kind: &Kind, host_index: u32) -> io::Result<()> {
    let Kind { image_id, size, key, disk_bytes } = kind;
    let (image_id, key) = (image_id.clone(), key.to_string());
    let record = Record { image_id, size: *size, key, disk_bytes: *disk_bytes, host_index };
    let draft = dir.join("pool.new");
    std::fs::write(&draft, serde_json::to_vec(&record)?)?;
    std::fs::rename(draft, path(dir))
}

/// The kind and host index of the pooled machine in a directory, if there is one.
pub(crate) fn read(dir: &Path) -> Option<(Kind, u32)> {
    let record: Record = serde_json::from_slice(&std::fs::read(path(dir)).ok()?).ok()?;
    let Record { image_id, size, key, disk_bytes, host_index } = record;
    Some((Kind { image_id, size, key: Key::parse(&key)?, disk_bytes }, host_index))
}

/// Removes it.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    std::fs::remove_file(path(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::parse("0123456789abcdef0123456789abcdef").unwrap();
        let kind = Kind { image_id: "img-a".into(), size: Size { vcpus: 1, mem_mib: 256 }, key, disk_bytes: 1 << 29 };
        assert!(read(dir.path()).is_none());
        write(dir.path(), &kind, 7).unwrap();
        assert_eq!(read(dir.path()), Some((kind, 7)));
        remove(dir.path()).unwrap();
        assert!(read(dir.path()).is_none());
        std::fs::write(path(dir.path()), "{}").unwrap();
        assert!(read(dir.path()).is_none());
    }
}

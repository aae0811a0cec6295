//! Keeping a machine's logs from growing without end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Bytes at which a log is cut.
const MOST: u64 = 1024 * 1024;

/// Bytes that stay when it is cut: those at its end.
const KEPT: u64 = MOST / 2;

/// Cuts the log at `path` if it has grown too large. Its writer has it open for appending, so what it writes next comes after
/// what is kept; lines that it writes during the cut may be lost.
pub(crate) fn trim(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.len() <= MOST {
        return Ok(());
    }
    let end = end(path, KEPT)?;
    let log = OpenOptions::new().write(true).open(path)?;
    log.set_len(0)?;
    // Not behind what is written meanwhile: a hostile writer would have the log grow beyond the limit for its files.
    log.write_all_at(&end, 0)
}

/// At most so many bytes of the log's end. The guest, or its monitor, decides what is in it and how long it is.
pub fn end(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(most)))?;
    let mut end = Vec::new();
    file.take(most).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_log_keeps_its_end_and_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        writer.write_all(b"short\n").unwrap();
        trim(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short\n");
        writer.write_all(&vec![b'.'; 2 << 20]).unwrap();
        writer.write_all(b"the end\n").unwrap();
        trim(&path).unwrap();
        writer.write_all(b"and on\n").unwrap();
        let left = std::fs::read(&path).unwrap();
        assert_eq!(left.len(), 512 * 1024 + 7);
        assert!(left.ends_with(b".the end\nand on\n"));
    }
}

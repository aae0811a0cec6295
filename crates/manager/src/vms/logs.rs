//! A VM's logs. The guest decides what is in them; nothing is read beyond a bound.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rds_vmm::hypervisor::Log;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Result};

/// Lines that a caller may ask for (section 2 of the wire contract).
pub const MAX_TAIL: u32 = 1000;

/// Lines of a reply if the caller names no number.
pub const DEFAULT_TAIL: u32 = 200;

/// Bytes that are read from the end of a log.
const MAX_BYTES: u64 = 1024 * 1024;

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmLog {
    /// The type that was asked for.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its last lines, oldest first.
    pub lines: Vec<String>,
    /// Whether there are earlier lines.
    pub truncated: bool,
    /// When it was last written to (RFC 3339); absent if there is no such log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
}

/// Which log a type on the wire means. The names with `firecracker` are the older API's, for every monitor.
pub fn log_of(kind: &str) -> Result<Log> {
    Ok(match kind {
        "serial.log" | "firecracker.log" => Log::Serial,
        "firecracker.stdout.log" => Log::Stdout,
        "vmm.log" | "firecracker.stderr.log" => Log::Stderr,
        _ => {
            return Err(Error::invalid(
                "type must be firecracker.log, firecracker.stdout.log, firecracker.stderr.log, serial.log or vmm.log",
            ));
        }
    })
}

/// The last lines of a file. Bytes that are no UTF-8 are replaced; a file that does not exist is an empty log.
pub fn tail(file: &Path, lines: u32) -> io::Result<VmLog> {
    let mut file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VmLog::default()),
        opened => opened?,
    };
    let meta = file.metadata()?;
    let skipped = meta.len().saturating_sub(MAX_BYTES);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let first = all.len().saturating_sub(lines as usize);
    let changed = meta.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
    Ok(VmLog {
        kind: String::new(),
        lines: all[first..].iter().map(ToString::to_string).collect(),
        truncated: skipped > 0 || first > 0,
        updated_at: changed.map(|time| crate::clock::rfc3339(time.as_millisecond())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_long_log() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = "x".repeat(999);
        let text: String = (0..2000).map(|n| format!("{n} {line}\n")).collect();
        std::fs::write(file.path(), text).unwrap();
        let log = tail(file.path(), 3).unwrap();
        assert!(log.truncated && log.updated_at.is_some());
        let numbers: Vec<_> = log.lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(numbers, ["1997", "1998", "1999"]);
    }

    #[test]
    fn no_file_is_an_empty_log() {
        assert_eq!(tail(Path::new("/nonexistent"), 3).unwrap(), VmLog::default());
    }
}

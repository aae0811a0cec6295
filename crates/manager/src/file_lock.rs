//! Files that are one process's at a time. The kernel takes them back when the process ends, however.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// How long a lock is waited for: a server that was killed while it started a machine leaves it for a moment to the
/// process that was to become one.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);

/// Takes a lock, whose file is made if there is none, until what this gives is dropped. May wait a moment. A conflict, with
/// these words, if another has it.
pub(crate) fn take(path: &Path, taken_by_another: impl FnOnce() -> String) -> Result<File> {
    let fail = |error: io::Error| Error::internal(format!("cannot lock {}", path.display()), error);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(fail)?;
    let begun = Instant::now();
    let taken = loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => std::thread::sleep(POLL),
            taken => break taken,
        }
    };
    match taken {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(Error::conflict(taken_by_another())),
        Err(error) => Err(fail(error.into())),
    }
}

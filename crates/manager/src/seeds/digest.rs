//! Whether a seed is as it was written.
//!
//! A guest whose memory is wrong in one byte may run for a while and do anything. So what a seed holds is known by a
//! digest, which is compared once for each start of the server, and again when a file was written to since.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// What a digest is made of: memory is not empty or empty by the page.
const BLOCK: usize = 4096;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// What is read at once.
const CHUNK: usize = 256 * BLOCK;

/// What tells that the files of a directory were not written to meanwhile, without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(BTreeMap<OsString, (u64, u64, i64, i64)>);

impl Stamp {
    /// As it is now.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let facts = entry.metadata()?;
            Ok((entry.file_name(), (facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec())))
        };
        fs::read_dir(dir)?.map(entry).collect::<io::Result<_>>().map(Self)
    }
}

/// The digest of the files in a directory, apart from `except`. Holes and zeros are the same.
pub(super) fn digest(dir: &Path, except: &str) -> io::Result<String> {
    let mut names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.retain(|name| name != except);
    names.sort();
    let mut digest = Sha256::new();
    for name in names {
        let file = File::open(dir.join(&name))?;
        let length = file.metadata()?.len();
        digest.update(format!("{}\0{length}\0", name.display()));
        add(&mut digest, &file)?;
    }
    Ok(hex::encode(digest.finalize()))
}

/// Adds every block that is not all zeros, with its place.
fn add(digest: &mut Sha256, file: &File) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut end = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(end)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        end = seek(file, SeekFrom::Hole(start))?;
        // Whatever a file system takes for the beginning of data.
        let mut at = start - start % BLOCK as u64;
        while at < end {
            let read = file.read_at(&mut buffer, at)?;
            if read == 0 {
                break;
            }
            for block in buffer[..read].chunks(BLOCK) {
                if *block != ZEROS[..block.len()] {
                    digest.update(at.to_le_bytes());
                    digest.update(block);
                }
                at += block.len() as u64;
            }
        }
        end = end.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_counts_and_holes_do_not() {
        let digest_of = |write: &dyn Fn(&File)| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("about"), "differs each time").unwrap();
            write(&File::create_new(dir.path().join("memory")).unwrap());
            (digest(dir.path(), "about").unwrap(), Stamp::of(dir.path()).unwrap())
        };
        let sparse = |file: &File| {
            file.set_len(4 << 20).unwrap();
            file.write_all_at(b"abc", (3 << 20) + 5).unwrap();
        };
        let (first, stamp) = digest_of(&sparse);
        let full = |file: &File| {
            file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
            file.write_all_at(b"abc", (3 << 20) + 5).unwrap();
        };
        let (second, other) = digest_of(&full);
        assert_eq!(first, second);
        assert_ne!(stamp, other, "another file");
        let moved = |file: &File| {
            file.set_len(4 << 20).unwrap();
            file.write_all_at(b"abc", (2 << 20) + 5).unwrap();
        };
        assert_ne!(digest_of(&moved).0, first);
        let longer = |file: &File| {
            sparse(file);
            file.set_len(5 << 20).unwrap();
        };
        assert_ne!(digest_of(&longer).0, first);
    }
}

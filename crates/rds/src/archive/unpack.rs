//! Unpacking what a VM sends, which is hostile: it may be a bomb, and its paths may lead anywhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use rds_protocol::archive_bounds::{Bounded, LONGEST_NAME};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::LeftOut;
use crate::error::{CliError, chain};

/// Files and directories of one archive.
const ENTRIES: usize = 200_000;

/// Unpacks regular files and directories under `dest`, a directory that is there; what lies there is replaced. Of the
/// modes only the executable bit is the archive's.
///
/// More than `most` bytes, unpacked, are an error. Gives what was left out.
pub(crate) fn unpack(archive: impl Read, dest: &Path, most: u64) -> Result<LeftOut, CliError> {
    let root = openat(CWD, dest, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(io::Error::from).map_err(CliError::file(dest))?;
    let mut unpacking = Unpacking { root, left: ENTRIES, left_out: LeftOut::default() };
    unpacking.all(Bounded::new(GzDecoder::new(archive), most, super::refusal(most))).map_err(|(path, error)| {
        // Not the system's word: the archive's.
        match error.raw_os_error() {
            None => CliError::Failed(format!("what came from the VM cannot be unpacked: {}", chain(&error))),
            Some(_) => CliError::file(dest.join(path))(error),
        }
    })?;
    Ok(unpacking.left_out)
}

struct Unpacking {
    root: OwnedFd,
    /// Files and directories that may still be made.
    left: usize,
    left_out: LeftOut,
}

impl Unpacking {
    /// A failure comes with the path that it is about.
    fn all(&mut self, unpacked: impl Read) -> Result<(), (PathBuf, io::Error)> {
        let elsewhere = |error| (PathBuf::new(), error);
        let mut archive = Archive::new(unpacked);
        let mut long = None;
        // Raw, because the reader would take names and attributes of any length into memory.
        for entry in archive.entries().map_err(elsewhere)?.raw(true) {
            let mut entry = entry.map_err(elsewhere)?;
            match entry.header().entry_type() {
                EntryType::GNULongName if long.is_none() => long = Some(long_name(&mut entry).map_err(elsewhere)?),
                EntryType::GNULongLink => {} // the target of a link, which is left out
                EntryType::GNULongName | EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNUSparse => {
                    return Err(elsewhere(io::Error::other("no server packs like that")));
                }
                _ => {
                    let path = match long.take() {
                        Some(path) => path,
                        None => entry.path().map_err(elsewhere)?.into_owned(),
                    };
                    self.one(&mut entry, &path).map_err(|error| (path, error))?;
                }
            }
        }
        // What follows the archive's end must still be sound gzip.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map(drop).map_err(elsewhere)
    }

    fn one(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        self.count()?;
        let parts = plain_parts(path)?;
        match entry.header().entry_type() {
            EntryType::Directory => self.directory(&parts).map(drop),
            EntryType::Regular => {
                let Some((name, above)) = parts.split_last() else {
                    return Err(io::Error::other("the archive has a file without a name"));
                };
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
                let mut file = create(&self.directory(above)?, name, executable)?;
                let copied = io::copy(entry, &mut file)?;
                if copied == entry.size() { Ok(()) } else { Err(io::Error::other("a file ends early")) }
            }
            _ => {
                self.left_out.add(path);
                Ok(())
            }
        }
    }

    /// Opens a directory, made with those above it where they are missing. No link is followed.
    fn directory(&mut self, parts: &[&OsStr]) -> io::Result<OwnedFd> {
        let mut here = self.root.try_clone()?;
        for name in parts {
            match mkdirat(&here, *name, Mode::from_raw_mode(0o755)) {
                Ok(()) => self.count()?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            here = openat(&here, *name, flags, Mode::empty())?;
        }
        Ok(here)
    }

    fn count(&mut self) -> io::Result<()> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| {
            io::Error::other(format!("it has more than {ENTRIES} files and directories; copy a part of the directory"))
        })?;
        Ok(())
    }
}

/// The name of the entry that follows, which is too long for a header.
fn long_name(entry: &mut Entry<'_, impl Read>) -> io::Result<PathBuf> {
    if entry.size() > LONGEST_NAME {
        return Err(io::Error::other(format!("it has a name of more than {LONGEST_NAME} bytes")));
    }
    let mut name = Vec::new();
    entry.read_to_end(&mut name)?;
    name.pop_if(|last| *last == 0);
    Ok(OsString::from_vec(name).into())
}

/// The components of a path that is relative and never goes up.
fn plain_parts(path: &Path) -> io::Result<Vec<&OsStr>> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(io::Error::other(format!("{} leads out of the archive", path.display()))),
        })
        .collect()
}

/// Makes a new file in place of whatever file or link has that name.
fn create(directory: &OwnedFd, name: &OsStr, executable: bool) -> io::Result<File> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
    Ok(openat(directory, name, flags, mode)?.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    const MOST: u64 = 1 << 20;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn header(name: &[u8], kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn packed(entries: &[(&str, EntryType, u32)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, mode) in entries {
            builder.append(&header(name.as_bytes(), *kind, *mode, 0), io::empty()).unwrap();
        }
        gzip(&builder.into_inner().unwrap())
    }

    fn refusal(archive: &[u8]) -> String {
        let dest = tempfile::tempdir().unwrap();
        unpack(archive, dest.path(), MOST).unwrap_err().to_string()
    }

    #[test]
    fn a_hostile_archive_writes_nothing_outside() {
        let parent = tempfile::tempdir().unwrap();
        let dest = parent.path().join("dest");
        fs::create_dir(&dest).unwrap();
        symlink(parent.path(), dest.join("out")).unwrap();
        for name in ["../x", "a/../../x", "/x", "out/x"] {
            let archive = packed(&[(name, EntryType::Regular, 0o644)]);
            unpack(&archive[..], &dest, MOST).unwrap_err();
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        assert!(!Path::new("/x").exists());
        unpack(&packed(&[("out", EntryType::Regular, 0o644)])[..], &dest, MOST).unwrap();
        assert!(fs::symlink_metadata(dest.join("out")).unwrap().is_file(), "the link is replaced, not followed");
    }

    #[test]
    fn a_changed_byte_leads_nowhere() {
        let parent = tempfile::tempdir().unwrap();
        let dest = parent.path().join("dest");
        fs::create_dir(&dest).unwrap();
        let file = header(b"a/b", EntryType::Regular, 0o644, 512);
        let name = header(b"../../x", EntryType::GNULongName, 0o644, 8);
        let archive = [file.as_bytes(), &[b'/'; 512][..], name.as_bytes(), b"../../x\0"].concat();
        for place in 0..archive.len() {
            for change in [1, 4, 0x80] {
                let mut changed = archive.clone();
                changed[place] ^= change;
                for head in [0..512, 1024..1536] {
                    // With a sum that is right, or nothing but the sum is looked at.
                    let mut header = Header::from_byte_slice(&changed[head.clone()]).clone();
                    header.set_cksum();
                    changed[head].copy_from_slice(header.as_bytes());
                }
                let root = File::open(&dest).unwrap().into();
                let _ = Unpacking { root, left: 9, left_out: LeftOut::default() }.all(&changed[..]);
            }
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        assert!(!Path::new("/x").exists());
    }

    #[test]
    fn of_the_modes_the_executable_bit_alone_travels() {
        let dest = tempfile::tempdir().unwrap();
        let archive = packed(&[
            ("shut", EntryType::Directory, 0o555),
            ("shut/open", EntryType::Regular, 0o666),
            ("shut/program", EntryType::Regular, 0o4777),
            ("none/none", EntryType::Regular, 0),
        ]);
        unpack(&archive[..], dest.path(), MOST).unwrap();
        let mode = |name| fs::metadata(dest.path().join(name)).unwrap().permissions().mode() & 0o7777;
        // The umask may take more away.
        for (name, most) in [("shut", 0o755), ("shut/open", 0o644), ("shut/program", 0o755), ("none/none", 0o644)] {
            assert_eq!((mode(name) & !most, mode(name) & 0o700), (0, most & 0o700), "{name}");
        }
    }

    #[test]
    fn links_and_special_files_are_left_out_and_named() {
        let dest = tempfile::tempdir().unwrap();
        let archive = packed(&[
            ("a", EntryType::Symlink, 0o777),
            ("b", EntryType::Regular, 0o644),
            ("c", EntryType::Link, 0o644),
            ("d", EntryType::Fifo, 0o644),
        ]);
        let left_out = unpack(&archive[..], dest.path(), MOST).unwrap();
        assert!(left_out.told().unwrap().ends_with(": a, c, d"));
        assert_eq!(fs::read_dir(dest.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bomb_ends_early() {
        let size = 4 * MOST;
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        builder.append(&header(b"f", EntryType::Regular, 0o644, size), io::repeat(0).take(size)).unwrap();
        let archive = builder.into_inner().unwrap().finish().unwrap();
        assert!(archive.len() < 64 * 1024);
        let dest = tempfile::tempdir().unwrap();
        let error = unpack(&archive[..], dest.path(), MOST).unwrap_err().to_string();
        assert!(error.contains("more than 1 MiB"), "{error}");
        assert!(fs::metadata(dest.path().join("f")).unwrap().len() <= MOST);
    }

    #[test]
    fn names_are_bounded_and_long_ones_are_kept() {
        let long = |size: usize| {
            let name = header(b"././@LongLink", EntryType::GNULongName, 0o644, size as u64);
            gzip(&[name.as_bytes(), &vec![b'a'; size][..]].concat())
        };
        let error = refusal(&long(128 * 1024));
        assert!(error.contains("65536 bytes"), "{error}");
        for kind in [EntryType::XHeader, EntryType::XGlobalHeader, EntryType::GNUSparse] {
            let error = refusal(&packed(&[("x", kind, 0o644)]));
            assert!(error.contains("no server packs like that"), "{kind:?}: {error}");
        }
        let dest = tempfile::tempdir().unwrap();
        let deep = "d/".repeat(200);
        let mut builder = Builder::new(Vec::new());
        let mut link = header(b"", EntryType::Symlink, 0o777, 0);
        builder.append_link(&mut link, format!("{deep}link"), format!("/{deep}")).unwrap();
        builder.append_data(&mut header(b"", EntryType::Regular, 0o644, 2), format!("{deep}f"), &b"hi"[..]).unwrap();
        let left_out = unpack(&gzip(&builder.into_inner().unwrap())[..], dest.path(), MOST).unwrap();
        assert!(left_out.told().unwrap().ends_with("d/link"));
        assert_eq!(fs::read(dest.path().join(deep).join("f")).unwrap(), b"hi");
    }

    #[test]
    fn directories_that_no_entry_names_are_counted_too() {
        let dest = tempfile::tempdir().unwrap();
        let root = File::open(dest.path()).unwrap().into();
        let mut unpacking = Unpacking { root, left: 3, left_out: LeftOut::default() };
        let archive = |name| {
            let header = header(name, EntryType::Regular, 0o644, 0);
            io::Cursor::new([header.as_bytes(), &[0; 1024][..]].concat())
        };
        unpacking.all(archive(b"a/b/f")).unwrap();
        let (_, error) = unpacking.all(archive(b"g")).unwrap_err();
        assert!(error.to_string().contains("more than 200000 files"), "{error}");
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let archive = packed(&[("f", EntryType::Regular, 0o644)]);
        for length in 0..archive.len() {
            refusal(&archive[..length]);
        }
        let short = header(b"f", EntryType::Regular, 0o644, 512);
        let error = refusal(&gzip(short.as_bytes()));
        assert!(error.contains("early") || error.contains("EOF"), "{error}");
    }
}

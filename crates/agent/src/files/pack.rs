//! A directory's contents, or one file, as a tar.gz.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path as StdPath, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use tar::{Builder, EntryType, Header};

use super::beneath::Path;
use super::failure::Failure;
use super::jailed::READ;
use super::look::names;

/// Directories within each other. Each costs an open file.
const DEPTH: usize = 512;

/// What the agent puts into `/workspace` itself, read-only and with this start's token: an archive of `/workspace` without
/// it can be unpacked there again.
const GENERATED: [&CStr; 2] = [c"peers", c".rds"];

/// Packs what is at a path. Symbolic links are packed as what they are; devices, fifos and sockets are left out, and so is
/// what is generated when all of `/workspace` is packed.
pub(super) fn pack(path: &Path, output: impl Write) -> Result<(), Failure> {
    let found = path.open(OFlags::PATH)?;
    let stat = fstat(&found).map_err(|error| path.failed(error))?;
    // Opened before the first byte goes out, so that a failure can still be told.
    let file = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => path.open(OFlags::RDONLY | OFlags::DIRECTORY)?,
        _ => open_file(path)?.into(),
    };
    let mut builder = Builder::new(GzEncoder::new(output, Compression::fast()));
    let packed = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let generated: &[_] = if path.name().is_empty() { &GENERATED } else { &[] };
            pack_directory(&mut builder, &file, StdPath::new(""), 0, generated)
        }
        _ => append_file(&mut builder, file.into(), StdPath::new(path.name())),
    };
    let finished = packed.and_then(|()| builder.into_inner()?.finish()?.flush());
    finished.map_err(|error| path.failed(error))
}

/// Opens a regular file for reading; anything else is refused.
pub(super) fn open_file(path: &Path) -> Result<File, Failure> {
    let file = path.open(READ)?;
    let stat = fstat(&file).map_err(|error| path.failed(error))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        FileType::Directory => Err(path.failed(io::Error::from_raw_os_error(libc::EISDIR))),
        _ => Err(Failure::bad(format!("{path}: it is neither a file nor a directory"))),
    }
}

fn pack_directory<W: Write>(
    builder: &mut Builder<W>,
    directory: &OwnedFd,
    at: &StdPath,
    depth: usize,
    left_out: &[&CStr],
) -> io::Result<()> {
    if depth > DEPTH {
        return Err(io::Error::other(format!("more than {DEPTH} directories within each other")));
    }
    for name in names(directory)?.into_iter().filter(|name| !left_out.contains(&&**name)) {
        // One that has gone meanwhile is not there.
        if let Ok(stat) = statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            pack_entry(builder, directory, &name, &at.join(OsStr::from_bytes(name.to_bytes())), &stat, depth)?;
        }
    }
    Ok(())
}

fn pack_entry<W: Write>(
    builder: &mut Builder<W>,
    directory: &OwnedFd,
    name: &CStr,
    path: &StdPath,
    stat: &Stat,
    depth: usize,
) -> io::Result<()> {
    let open = |flags: OFlags| openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let mut header = header(EntryType::Directory, stat, 0);
            builder.append_data(&mut header, path, io::empty())?;
            match open(OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(below) => pack_directory(builder, &below, path, depth + 1, &[]),
                Err(error) => missing(error),
            }
        }
        FileType::RegularFile => match open(READ) {
            Ok(file) => append_file(builder, file.into(), path),
            Err(error) => missing(error),
        },
        FileType::Symlink => match readlinkat(directory, name, Vec::new()) {
            Ok(target) => {
                let target = PathBuf::from(OsStr::from_bytes(target.to_bytes()));
                builder.append_link(&mut header(EntryType::Symlink, stat, 0), path, target)
            }
            Err(error) => missing(error),
        },
        _ => Ok(()),
    }
}

/// What has gone meanwhile, or is the user's but not readable, is left out.
fn missing(error: rustix::io::Errno) -> io::Result<()> {
    use rustix::io::Errno;
    match error {
        Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NOTDIR => Ok(()),
        other => Err(other.into()),
    }
}

/// Appends a file with the length that it has now: what grows meanwhile is cut, what shrinks is filled with zeros.
fn append_file<W: Write>(builder: &mut Builder<W>, file: File, path: &StdPath) -> io::Result<()> {
    let stat = fstat(file.as_fd())?;
    let size = stat.st_size.cast_unsigned();
    let content = file.take(size).chain(io::repeat(0)).take(size);
    builder.append_data(&mut header(EntryType::Regular, &stat, size), path, content)
}

fn header(kind: EntryType, stat: &Stat, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(size);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn files_directories_and_links_are_packed_as_they_are() {
        let dir = std::env::temp_dir().join(format!("rds-pack-{}", std::process::id()));
        let long = "n".repeat(200);
        for made in ["sub/empty", "sub/peers", ".rds/left", "peers/left"] {
            std::fs::create_dir_all(dir.join(made)).unwrap();
        }
        std::fs::write(dir.join("sub").join(&long), "text").unwrap();
        std::fs::write(dir.join("program"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(dir.join("program"), std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/etc/passwd", dir.join("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
        let mut builder = Builder::new(Vec::new());
        pack_directory(&mut builder, &File::open(&dir).unwrap().into(), StdPath::new(""), 0, &GENERATED).unwrap();
        drop(socket);
        std::fs::remove_dir_all(&dir).unwrap();

        let packed = builder.into_inner().unwrap();
        let mut archive = tar::Archive::new(&packed[..]);
        let seen: Vec<_> = (archive.entries().unwrap())
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                (path, entry.header().entry_type(), entry.header().mode().unwrap() & 0o111 != 0)
            })
            .collect();
        let expected = [
            ("link".into(), EntryType::Symlink, true),
            ("program".into(), EntryType::Regular, true),
            ("sub".into(), EntryType::Directory, true),
            ("sub/empty".into(), EntryType::Directory, true),
            (format!("sub/{long}"), EntryType::Regular, false),
            ("sub/peers".into(), EntryType::Directory, true),
        ];
        assert_eq!(seen, expected);
    }
}

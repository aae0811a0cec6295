//! Files with holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;
use rustix::param::page_size;

/// Bytes that are copied, or looked at for zeros, at once: more do not stay in a processor's cache, and emulated took half as
/// long again.
const PIECE: usize = 64 * 1024;

/// Gives an empty file the content of another, which does not change meanwhile, with its holes.
pub(crate) fn clone(from: &File, to: &File) -> io::Result<()> {
    // Shares the blocks where the file system can.
    match ioctl_ficlone(to, from) {
        Ok(()) => Ok(()),
        Err(_) => {
            let length = from.metadata()?.len();
            to.set_len(length)?;
            copy_written(from, to, length)
        }
    }
}

/// Copies what is written of a file's first `length` bytes to the same places of another.
pub(crate) fn copy_written(from: &File, to: &File, length: u64) -> io::Result<()> {
    each_written(from, length, |written| {
        copy_range(from, written.start, to, written.start, written.end - written.start)
    })
}

/// Copies what is not zero of a file's first `length` bytes to the same places of another of which nothing is written: the rest
/// stays a hole.
pub(crate) fn copy_nonzero(from: &File, to: &File, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    each_written(from, length, |written| {
        let mut at = written.start;
        while at < written.end {
            let room = usize::try_from(written.end - at).unwrap_or(usize::MAX).min(PIECE);
            let piece = &mut buffer[..room];
            from.read_exact_at(piece, at)?;
            if piece.iter().any(|byte| *byte != 0) {
                to.write_all_at(piece, at)?;
            }
            at += room as u64;
        }
        Ok(())
    })
}

/// Does something with each part of a file's first `length` bytes that is no hole. Whoever else has the file open may make it
/// longer meanwhile.
fn each_written(file: &File, length: u64, mut work: impl FnMut(Range<u64>) -> io::Result<()>) -> io::Result<()> {
    let mut end = 0;
    while let Some(written) = next_written(file, end)?.filter(|written| written.start < length) {
        // Or a hole of what was written.
        end = written.end.clamp(written.start + 1, length);
        work(written.start..end)?;
    }
    Ok(())
}

/// Whether nothing of a file is written.
pub(crate) fn is_hole(file: &File) -> io::Result<bool> {
    Ok(next_written(file, 0)?.is_none())
}

/// The next part of a file, at or behind a place, that is no hole.
fn next_written(file: &File, from: u64) -> io::Result<Option<Range<u64>>> {
    match seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some(start..seek(file, SeekFrom::Hole(start))?)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies so many bytes from a place in one file to a place in another.
pub(crate) fn copy_range(from: &File, mut start: u64, to: &File, mut at: u64, mut length: u64) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(PIECE).min(PIECE)];
    while length > 0 {
        let room = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..room];
        from.read_exact_at(piece, start)?;
        to.write_all_at(piece, at)?;
        (start, at, length) = (start + room as u64, at + room as u64, length - room as u64);
    }
    Ok(())
}

/// Whether a page that is written to this file is told from the holes around it: a filesystem of larger blocks, or of none,
/// says that more was written. Leaves the file empty.
pub(crate) fn tells_pages(file: &File) -> io::Result<bool> {
    let page = page_size() as u64;
    let (start, end) = (32 * page, 33 * page);
    file.set_len(0)?;
    file.set_len(2 * start)?;
    file.write_all_at(&vec![1; page_size()], start)?;
    let told = next_written(file, 0);
    file.set_len(0)?;
    Ok(told? == Some(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"abc", 32 << 20).unwrap();
        clone(&from, &to).unwrap();
        assert!(!is_hole(&to).unwrap());
        let mut there = [0; 3];
        to.read_exact_at(&mut there, 32 << 20).unwrap();
        assert_eq!(&there, b"abc");
        let facts = to.metadata().unwrap();
        assert_eq!(facts.len(), 64 << 20);
        assert!(facts.blocks() * 512 < 1 << 20, "{} blocks", facts.blocks());
    }

    #[test]
    fn what_is_not_written_is_not_copied() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let page = page_size() as u64;
        to.write_all_at(&vec![b'a'; 64 * page_size()], 0).unwrap();
        from.set_len(64 * page).unwrap();
        for changed in [0, 31, 63] {
            from.write_all_at(&vec![0; page_size()], changed * page).unwrap();
        }
        from.write_all_at(b"more", 64 * page).unwrap();
        copy_written(&from, &to, 64 * page).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 64 * page);
        let mut content = vec![0; 64 * page_size()];
        to.read_exact_at(&mut content, 0).unwrap();
        let zeros: Vec<usize> =
            (0..64).filter(|at| content[at * page_size()..][..page_size()].iter().all(|byte| *byte == 0)).collect();
        assert_eq!(zeros, [0, 31, 63]);
        assert_eq!(content.iter().filter(|byte| **byte == 0).count(), 3 * page_size());
    }

    #[test]
    fn zeros_become_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut content = vec![0; (4 << 20) + 1];
        content[2 << 20] = 1;
        content[4 << 20] = 2;
        from.write_all_at(&content, 0).unwrap();
        to.set_len(content.len() as u64).unwrap();
        assert!(is_hole(&to).unwrap());
        from.write_all_at(b"more", content.len() as u64).unwrap();
        copy_nonzero(&from, &to, content.len() as u64).unwrap();
        let mut copied = vec![0; content.len()];
        to.read_exact_at(&mut copied, 0).unwrap();
        assert!(copied == content);
        let facts = to.metadata().unwrap();
        assert_eq!(facts.len(), content.len() as u64);
        assert!(facts.blocks() * 512 < 1 << 20);
    }

    #[test]
    fn files_here_tell_pages() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"old", 0).unwrap();
        assert!(tells_pages(&file).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}

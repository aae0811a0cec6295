//! A guest's memory, seen from outside its process.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::param::page_size;

use crate::sparse;

/// Link of the memory of a machine that was booted, in `/proc/<pid>/fd`: QEMU's `memory-backend-memfd` gives it this name.
const FRESH: &str = "/memfd:memory-backend-memfd (deleted)";

/// Bits of an entry of `/proc/<pid>/pagemap`, proc(5).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;

/// Where a machine's memory is.
#[derive(Debug)]
pub(super) enum GuestMemory {
    /// All of it in a file of its own.
    Own(File),
    /// What it started from in a file that it shares with others, and what it has changed in its process alone.
    Copied {
        /// What it started from.
        base: File,
        /// The process's addresses of the file, from its beginning to its end.
        pieces: Vec<Piece>,
        pid: i32,
    },
}

/// A part of a file that a process has mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    addresses: Range<u64>,
    offset: u64,
}

impl GuestMemory {
    /// The memory of a machine's process.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let path = entry?.path();
            let Ok(target) = fs::read_link(&path) else { continue };
            if target.as_os_str() == FRESH {
                return Ok(Self::Own(File::open(path)?));
            }
            let Some(target) = target.to_str() else { continue };
            let pieces = private(&maps, target);
            if !pieces.is_empty() {
                let base = File::open(path)?;
                if covers(&pieces, base.metadata()?.len()) {
                    return Ok(Self::Copied { base, pieces, pid });
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "it is in no file"))
    }

    /// Writes what the machine started from to an empty file, if that is not its own: it does not change any more.
    pub(super) fn copy_base(&self, to: &File) -> io::Result<()> {
        let Self::Copied { base, .. } = self else { return Ok(()) };
        sparse::clone(base, to)
    }

    /// Writes the rest of the memory of a machine that stands still.
    pub(super) fn copy_own(&self, to: &File) -> io::Result<()> {
        let (pieces, pid) = match self {
            Self::Own(memory) => return sparse::clone(memory, to),
            Self::Copied { pieces, pid, .. } => (pieces, pid),
        };
        let (pagemap, memory) = (File::open(format!("/proc/{pid}/pagemap"))?, File::open(format!("/proc/{pid}/mem"))?);
        let page = page_size() as u64;
        for piece in pieces {
            let pages = (piece.addresses.end - piece.addresses.start) / page;
            let mut entries = vec![0; usize::try_from(pages * 8).map_err(io::Error::other)?];
            pagemap.read_exact_at(&mut entries, piece.addresses.start / page * 8)?;
            for changed in changed(&entries) {
                let (from, length) = (changed.start * page, (changed.end - changed.start) * page);
                sparse::copy_range(&memory, piece.addresses.start + from, to, piece.offset + from, length)?;
            }
        }
        Ok(())
    }
}

/// The private, writable parts of `file` in a process's `maps`.
fn private(maps: &str, file: &str) -> Vec<Piece> {
    maps.lines().filter_map(|line| piece(line, file)).collect()
}

/// A line is `start-end rw-p offset device inode path`, proc(5); a path may have spaces.
fn piece(line: &str, file: &str) -> Option<Piece> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let access = fields.next()?;
    let offset = fields.next()?;
    let path = fields.nth(2)?.trim_start();
    let number = |text| u64::from_str_radix(text, 16).ok();
    let fits = access.starts_with("rw") && access.ends_with('p') && path == file;
    fits.then_some(Piece { addresses: number(start)?..number(end)?, offset: number(offset)? })
}

/// Whether pieces follow each other from the beginning of a file to its end.
fn covers(pieces: &[Piece], length: u64) -> bool {
    let mut end = 0;
    pieces.iter().all(|piece| {
        let follows = piece.offset == end;
        end += piece.addresses.end - piece.addresses.start;
        follows
    }) && end == length
}

/// The pages that are the process's own, as ranges, from their entries in the page map. A page of a private map that was
/// never written to is either not there or the file's.
fn changed(entries: &[u8]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (index, entry) in (0..).zip(entries.as_chunks::<8>().0) {
        let entry = u64::from_ne_bytes(*entry);
        let own = entry & SWAPPED != 0 || entry & PRESENT != 0 && entry & OF_A_FILE == 0;
        match ranges.last_mut() {
            Some(last) if own && last.end == index => last.end += 1,
            _ if own => ranges.push(index..index + 1),
            _ => {}
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_maps_of_the_file_count() {
        let maps = "7f0000000000-7f0000002000 rw-p 00000000 fe:00 12                  /a dir/memory\n\
                    7f0000002000-7f0000003000 rw-p 00002000 fe:00 12                  /a dir/memory\n\
                    7f0000003000-7f0000004000 r--p 00000000 fe:00 12                  /a dir/memory\n\
                    7f0000004000-7f0000005000 rw-s 00000000 fe:00 12                  /a dir/memory\n\
                    7f0000005000-7f0000006000 rw-p 00000000 fe:00 13                  /a dir/memory2\n\
                    7f0000006000-7f0000007000 rw-p 00000000 00:00 0 \n";
        let pieces = private(maps, "/a dir/memory");
        assert_eq!(pieces.len(), 2);
        assert!(covers(&pieces, 0x3000) && !covers(&pieces, 0x4000) && !covers(&pieces[1..], 0x1000));
    }

    #[test]
    fn pages_of_ones_own_are_found() {
        let entries = [0, PRESENT, PRESENT | OF_A_FILE, SWAPPED, SWAPPED | OF_A_FILE, 0, PRESENT];
        let entries: Vec<u8> = entries.iter().flat_map(|entry: &u64| entry.to_ne_bytes()).collect();
        assert_eq!(changed(&entries), [1..2, 3..5, 6..7]);
    }

    /// What this process does to a private map of a file is what a copy of it holds.
    #[test]
    fn a_copy_has_what_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let page = page_size();
        fs::write(&path, vec![b'a'; 4 * page]).unwrap();
        let base = File::options().read(true).write(true).open(&path).unwrap();
        let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: a new map, at an address that the kernel chooses; it lives as long as the process.
        let map = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), 4 * page, access, rustix::mm::MapFlags::PRIVATE, &base, 0).unwrap()
        };
        // SAFETY: the third page of the map above, which nobody else uses.
        unsafe { map.cast::<u8>().add(2 * page).write(b'b') };
        let pid = i32::try_from(std::process::id()).unwrap();
        let memory = GuestMemory::of(pid).unwrap();
        let copy = tempfile::tempfile().unwrap();
        memory.copy_base(&copy).unwrap();
        memory.copy_own(&copy).unwrap();
        let mut content = vec![0; 4 * page];
        copy.read_exact_at(&mut content, 0).unwrap();
        let expected: Vec<u8> = (0..4 * page).map(|at| if at == 2 * page { b'b' } else { b'a' }).collect();
        assert!(content == expected);
        drop(base);
    }
}

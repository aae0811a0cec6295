//! Writes cpio archives in the `newc` form, the one the kernel unpacks as an initramfs.
//!
//! The form is described in the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. Archives are
//! the same for the same entries: owner 0, time 0, inode numbers in order.

use std::io::{self, Write};

/// First bytes of every header.
pub(crate) const MAGIC: &[u8; 6] = b"070701";

/// Name of the end mark.
pub(crate) const TRAILER: &str = "TRAILER!!!";

/// What kind of entry to write; the permission bits go with it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Node<'a> {
    Directory,
    File { mode: u32, content: &'a [u8] },
    CharDevice { mode: u32, major: u32, minor: u32 },
}

/// An archive being written. Without [`Archive::finish`] it is cut off.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// Adds an entry. `name` is relative to the root, without a leading slash; its directory must have been added.
    ///
    /// Fails with `InvalidInput` for a name with a NUL and for content over 4 GiB, which the form cannot hold.
    pub(crate) fn add(&mut self, name: &str, node: Node<'_>) -> io::Result<()> {
        let (mode, content, device) = match node {
            Node::Directory => (0o040_755, &[][..], (0, 0)),
            Node::File { mode, content } => (0o100_000 | mode, content, (0, 0)),
            Node::CharDevice { mode, major, minor } => (0o020_000 | mode, &[][..], (major, minor)),
        };
        self.entries += 1;
        self.entry(name, mode, content, device)
    }

    /// Writes the end mark and gives the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entries = 0;
        self.entry(TRAILER, 0, &[], (0, 0))?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], (major, minor): (u32, u32)) -> io::Result<()> {
        let size = u32::try_from(content.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let name_size = u32::try_from(name.len() + 1).map_err(|_| io::ErrorKind::InvalidInput)?;
        if name.contains('\0') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (owner, links, time, checksum) = (0, 1, 0, 0);
        self.out.write_all(MAGIC)?;
        for field in [self.entries, mode, owner, owner, links, time, size, 0, 0, major, minor, name_size, checksum] {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(b"\0")?;
        const HEADER: usize = 6 + 13 * 8;
        self.pad(HEADER + name.len() + 1)?;
        self.out.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads an archive as the kernel does: (name, mode, content) of every entry before the end mark.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], MAGIC);
            let field = |i: usize| {
                let text = std::str::from_utf8(&bytes[6 + i * 8..14 + i * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            if name == TRAILER {
                return entries;
            }
            entries.push((name, mode as u32, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    proptest! {
        #[test]
        fn every_file_comes_back(files in prop::collection::vec(("[a-z/]{1,40}", 0u32..0o1000, any::<Vec<u8>>()), 0..8)) {
            let mut archive = Archive::new(Vec::new());
            for (name, mode, content) in &files {
                archive.add(name, Node::File { mode: *mode, content }).unwrap();
            }
            let bytes = archive.finish().unwrap();
            prop_assert_eq!(bytes.len() % 4, 0);
            let expected: Vec<_> = files.into_iter().map(|(name, mode, content)| (name, 0o100_000 | mode, content)).collect();
            prop_assert_eq!(read(&bytes), expected);
        }
    }

    #[test]
    fn refuses_a_name_with_a_nul() {
        let added = Archive::new(Vec::new()).add("a\0b", Node::Directory);
        assert_eq!(added.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

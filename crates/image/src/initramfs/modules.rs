//! The modules archive of an image, as somebody made it: a cpio archive in the `newc` form. Nothing in it is believed, and
//! the kernel never gets to see it: what is found here is packed anew.
//!
//! Stricter than the kernel, which reads numbers with signs and goes on behind the end mark.

use std::io::{self, ErrorKind, Read};

use crate::ImageError;
use crate::cpio::{MAGIC, TRAILER};

/// Entries of an archive at most; a kernel has some 6,000 modules in all.
const MAX_ENTRIES: u32 = 20_000;
/// Bytes of a header: the magic number and 13 numbers of 8 hex digits.
const HEADER: usize = 110;
/// Bytes of a name at most, with its NUL.
const MAX_NAME: u32 = 1024;

const FILE_TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An entry; its name is `modules`, or a plain path below it.
pub(super) enum Entry<'a> {
    Directory,
    /// A file and its content. What is not read is passed over.
    File(&'a mut dyn Read),
}

/// Reads an archive to its end and hands out its entries in their order.
pub(super) fn read(
    mut archive: impl Read,
    mut each: impl FnMut(&str, Entry<'_>) -> io::Result<()>,
) -> Result<(), ImageError> {
    for _ in 0..=MAX_ENTRIES {
        let header = Header::read(&mut archive)?;
        let name = name(&mut archive, header.name_size)?;
        if name == TRAILER.as_bytes() {
            return end(archive);
        }
        let name = plain(&name).ok_or_else(|| misplaced(&name))?;
        let mut content = (&mut archive).take(header.size.into());
        match header.mode & FILE_TYPE {
            DIRECTORY => each(name, Entry::Directory),
            // Only the last of some links has the content.
            REGULAR if header.links > 1 && header.size == 0 => {
                return fault(format!("The modules archive has a hard link, {name:?}: pack a copy of the file"));
            }
            REGULAR => each(name, Entry::File(&mut content)),
            _ => return Err(misplaced(name.as_bytes())),
        }
        .map_err(failed)?;
        io::copy(&mut content, &mut io::sink()).map_err(failed)?;
        if content.limit() > 0 {
            return fault(CUT_OFF);
        }
        padding(&mut archive, header.size as usize)?;
    }
    fault(format!("The modules archive has more than {MAX_ENTRIES} entries"))
}

/// What matters of a header.
struct Header {
    mode: u32,
    links: u32,
    size: u32,
    name_size: u32,
}

impl Header {
    fn read(archive: &mut impl Read) -> Result<Self, ImageError> {
        let mut header = [0; HEADER];
        if !fill(archive, &mut header)? || !header.starts_with(MAGIC) {
            return fault("The modules are not an uncompressed cpio archive in the newc form");
        }
        let numbers = numbers(&header).ok_or_else(|| ImageError::Invalid(DAMAGED.into()))?;
        let [_, mode, _, _, links, _, size, _, _, _, _, name_size, _] = numbers;
        match name_size {
            2..=MAX_NAME => Ok(Self { mode, links, size, name_size }),
            _ => fault(DAMAGED),
        }
    }
}

fn numbers(header: &[u8; HEADER]) -> Option<[u32; 13]> {
    let mut numbers = [0; 13];
    for (number, digits) in numbers.iter_mut().zip(header[MAGIC.len()..].chunks(8)) {
        for digit in digits {
            *number = *number << 4 | char::from(*digit).to_digit(16)?;
        }
    }
    Some(numbers)
}

fn name(archive: &mut impl Read, size: u32) -> Result<Vec<u8>, ImageError> {
    let mut name = vec![0; size as usize];
    if !fill(archive, &mut name)? {
        return fault(CUT_OFF);
    }
    if name.pop() != Some(0) {
        return fault(DAMAGED);
    }
    padding(archive, HEADER + size as usize)?;
    Ok(name)
}

/// A name that leads nowhere but to `modules` and below it, however it is read.
fn plain(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok().filter(|name| !name.contains('\0'))?;
    let mut parts = name.split('/');
    (parts.next() == Some("modules") && parts.all(|part| !matches!(part, "" | "." | ".."))).then_some(name)
}

fn misplaced(name: &[u8]) -> ImageError {
    let name = String::from_utf8_lossy(name);
    ImageError::Invalid(format!("The modules archive may hold only files below modules/, and it holds {name:?}"))
}

/// Behind the end mark there is nothing but zeros, with which some programs fill up a block.
fn end(mut archive: impl Read) -> Result<(), ImageError> {
    let mut rest = [0; 4096];
    loop {
        match archive.read(&mut rest) {
            Ok(0) => return Ok(()),
            Ok(read) if rest[..read].iter().all(|byte| *byte == 0) => {}
            Ok(_) => return fault("The modules archive goes on behind its end"),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Fills the buffer; false if the archive ends before.
fn fill(archive: &mut impl Read, buffer: &mut [u8]) -> Result<bool, ImageError> {
    match archive.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn padding(archive: &mut impl Read, written: usize) -> Result<(), ImageError> {
    let mut padding = [0; 3];
    if fill(archive, &mut padding[..written.wrapping_neg() % 4])? { Ok(()) } else { fault(CUT_OFF) }
}

const DAMAGED: &str = "The modules archive is damaged";
const CUT_OFF: &str = "The modules archive is cut off";

fn fault<T>(what: impl Into<String>) -> Result<T, ImageError> {
    Err(ImageError::Invalid(what.into()))
}

fn failed(source: io::Error) -> ImageError {
    ImageError::Io { what: "cannot read a modules archive".into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::{Archive, Node};
    use proptest::prelude::*;

    type Entries = Vec<(String, Option<Vec<u8>>)>;

    fn entries(archive: &[u8]) -> Result<Entries, String> {
        let mut entries = Vec::new();
        let read = read(archive, |name, entry| {
            let content = match entry {
                Entry::Directory => None,
                Entry::File(content) => {
                    let mut bytes = Vec::new();
                    content.read_to_end(&mut bytes)?;
                    Some(bytes)
                }
            };
            entries.push((name.to_owned(), content));
            Ok(())
        });
        read.map(|()| entries).map_err(|error| match error {
            ImageError::Invalid(why) => why,
            other => panic!("{other}"),
        })
    }

    fn archive(nodes: &[(&str, Node<'_>)]) -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        for (name, node) in nodes {
            archive.add(name, *node).unwrap();
        }
        archive.finish().unwrap()
    }

    fn sound() -> Vec<u8> {
        let order = Node::File { mode: 0o644, content: b"a.ko" };
        archive(&[("modules", Node::Directory), ("modules/order", order)])
    }

    #[test]
    fn a_sound_archive_is_read_with_or_without_zeros_behind_it() {
        let expected = vec![("modules".to_owned(), None), ("modules/order".to_owned(), Some(b"a.ko".to_vec()))];
        assert_eq!(entries(&sound()), Ok(expected.clone()));
        assert_eq!(entries(&[sound(), vec![0; 5000]].concat()), Ok(expected));
    }

    #[test]
    fn nothing_comes_behind_the_end() {
        let agent = archive(&[("init", Node::File { mode: 0o755, content: b"mine" })]);
        for behind in [agent.as_slice(), b"\0\0\0\x01", &[&[0; 8192][..], b"x"].concat()] {
            assert!(entries(&[&sound(), behind].concat()).unwrap_err().contains("behind its end"));
        }
    }

    #[test]
    fn numbers_are_hex_digits_alone() {
        for (at, digits) in [(14, "+00041ed"), (54, "+0000000"), (54, "0x000000"), (94, " 0000008"), (6, "-0000001")] {
            let mut archive = sound();
            archive[at..at + 8].copy_from_slice(digits.as_bytes());
            assert_eq!(entries(&archive).unwrap_err(), DAMAGED, "{digits}");
        }
    }

    #[test]
    fn entries_are_files_and_directories_below_modules() {
        let file = Node::File { mode: 0o644, content: b"x" };
        for name in [
            "init",
            "/modules/x",
            "modulesx/y",
            "modules/../init",
            "modules/x/..",
            "./modules/x",
            "modules//x",
            "modules/",
        ] {
            assert!(entries(&archive(&[(name, file)])).unwrap_err().contains("below modules/"), "{name}");
        }
        let device = Node::CharDevice { mode: 0o666, major: 1, minor: 1 };
        assert!(entries(&archive(&[("modules/mem", device)])).unwrap_err().contains("below modules/"));
        for kind in ["0000a1ff", "000061b6", "000011b6", "0000c1b6"] {
            let mut archive = archive(&[("modules/x", file)]);
            archive[14..22].copy_from_slice(kind.as_bytes());
            assert!(entries(&archive).unwrap_err().contains("below modules/"), "{kind}");
        }
    }

    #[test]
    fn a_hard_link_is_refused_rather_than_lost() {
        let mut archive = archive(&[("modules/x", Node::File { mode: 0o644, content: b"" })]);
        archive[38..46].copy_from_slice(b"00000002");
        assert!(entries(&archive).unwrap_err().contains("hard link"));
    }

    #[test]
    fn what_is_cut_off_or_endless_is_refused() {
        let whole = sound();
        for length in 0..whole.len() {
            assert!(entries(&whole[..length]).is_err(), "{length}");
        }
        let mut endless = Archive::new(Vec::new());
        for _ in 0..=MAX_ENTRIES {
            endless.add("modules", Node::Directory).unwrap();
        }
        assert!(entries(&endless.finish().unwrap()).unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            files in prop::collection::vec(("modules/[a-z]{1,9}", any::<Vec<u8>>()), 0..8)
        ) {
            let nodes: Vec<_> =
                files.iter().map(|(name, content)| (name.as_str(), Node::File { mode: 0o644, content })).collect();
            let expected = files.iter().map(|(name, content)| (name.clone(), Some(content.clone()))).collect();
            prop_assert_eq!(entries(&archive(&nodes)), Ok(expected));
        }

        #[test]
        fn damage_is_no_panic_and_no_other_name(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
            let mut archive = sound();
            archive.truncate(archive.len().saturating_sub(cut).max(1));
            let at = at % archive.len();
            archive[at] = byte;
            if let Ok(entries) = entries(&archive) {
                prop_assert!(entries.iter().all(|(name, _)| name.starts_with("modules")));
            }
        }
    }
}

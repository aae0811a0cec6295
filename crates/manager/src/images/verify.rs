//! Whether a file is what it was uploaded as. A file that passes may still not boot.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rds_image::ImageError;
use rds_image::initramfs::check_modules;

use super::FileKind;
use crate::error::{Error, Result};

/// Checks a file and gives its length.
pub(super) fn file(kind: FileKind, path: &Path) -> Result<u64> {
    let fail = |error: io::Error| Error::internal(format!("cannot read {}", path.display()), error);
    let mut file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let fault = match kind {
        FileKind::Kernel => kernel(&head(&mut file, 1024).map_err(fail)?),
        FileKind::Rootfs => ext_file_system(&head(&mut file, 2048).map_err(fail)?, length),
        FileKind::Modules => modules(path)?,
    };
    fault.map_or(Ok(length), |fault| Err(Error::invalid(fault)))
}

/// See [`check_modules`].
fn modules(path: &Path) -> Result<Option<String>> {
    match check_modules(path) {
        Ok(()) => Ok(None),
        Err(ImageError::Invalid(fault)) => Ok(Some(fault)),
        Err(error) => Err(Error::internal(format!("cannot read {}", path.display()), error)),
    }
}

fn head(file: &mut File, bytes: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(bytes).read_to_end(&mut head)?;
    Ok(head)
}

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at + N)?.try_into().ok()
}

/// An ELF executable for x86-64 (ELF-64 object file format, figure 2) or a bzImage (the kernel's boot protocol).
fn kernel(head: &[u8]) -> Option<String> {
    if head.starts_with(b"\x7fELF") {
        let is_64_bit = head.get(4..6) == Some(&[2, 1]);
        let executable = bytes(head, 16).map(u16::from_le_bytes).is_some_and(|kind| kind == 2 || kind == 3);
        let x86_64 = bytes(head, 18).map(u16::from_le_bytes) == Some(62);
        return (!(is_64_bit && executable && x86_64)).then(|| "The kernel is an ELF file, but not for x86-64".into());
    }
    let is_bz_image = head.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && head.get(0x202..0x206) == Some(b"HdrS");
    (!is_bz_image).then(|| "The kernel is neither an ELF vmlinux nor a bzImage".into())
}

/// The superblock of ext2, ext3 and ext4 (the kernel's `Documentation/filesystems/ext4/super.rst`).
fn ext_file_system(head: &[u8], length: u64) -> Option<String> {
    const SUPERBLOCK: usize = 1024;
    const INCOMPAT_64BIT: u32 = 0x80;
    let u32_at = |at: usize| bytes(head, SUPERBLOCK + at).map(u32::from_le_bytes);
    let magic = bytes(head, SUPERBLOCK + 0x38).map(u16::from_le_bytes);
    let (Some(0xef53), Some(low), Some(log_block_size), Some(incompatible), Some(high)) =
        (magic, u32_at(0x4), u32_at(0x18), u32_at(0x60), u32_at(0x150))
    else {
        return Some("The root filesystem is not ext2, ext3 or ext4".into());
    };
    if log_block_size > 6 || low == 0 {
        return Some("The root filesystem's superblock is damaged".into());
    }
    let high = if incompatible & INCOMPAT_64BIT != 0 { u64::from(high) } else { 0 };
    let size = u128::from(high << 32 | u64::from(low)) << (10 + log_block_size);
    (size > u128::from(length))
        .then(|| format!("The root filesystem is cut off: it should have {size} bytes and has {length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_an_x86_64_executable_or_a_bz_image() {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[16] = 2;
        elf[18] = 62;
        assert_eq!(kernel(&elf), None);
        elf[18] = 183;
        assert!(kernel(&elf).unwrap().contains("x86-64"));
        let mut image = vec![0; 1024];
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        assert!(kernel(&image).is_some());
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert_eq!(kernel(&image), None);
        assert!(kernel(b"").is_some());
    }

    #[test]
    fn a_root_filesystem_is_whole() {
        let mut head = vec![0; 2048];
        assert!(ext_file_system(&head, 1 << 20).is_some());
        head[1024 + 0x38..1024 + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        head[1024 + 4..1024 + 8].copy_from_slice(&256_u32.to_le_bytes());
        head[1024 + 0x18] = 2;
        assert_eq!(ext_file_system(&head, 1 << 20), None);
        assert!(ext_file_system(&head, (1 << 20) - 1).unwrap().contains("cut off"));
        head[1024 + 0x18] = 200;
        assert!(ext_file_system(&head, 1 << 20).unwrap().contains("damaged"));
        assert!(ext_file_system(&head[..1500], 1 << 20).is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(magic in proptest::sample::select(vec![&b"\x7fELF"[..], b""]), bytes: Vec<u8>) {
            let mut data = magic.to_vec();
            data.extend(&bytes);
            let _ = (kernel(&data), ext_file_system(&data, 1 << 40));
        }
    }
}

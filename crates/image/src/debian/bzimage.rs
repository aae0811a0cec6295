//! Takes the `vmlinux` out of a bzImage.
//!
//! A monitor can start an ELF kernel directly, where a bzImage first unpacks itself in the guest, which takes over a
//! second under emulation. The header's fields are those of the kernel's `Documentation/arch/x86/boot.rst`.

use crate::ImageError;
use crate::debian::compression::decompress;

const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The ELF kernel inside.
pub(crate) fn vmlinux(image: &[u8]) -> Result<Vec<u8>, ImageError> {
    let payload = payload(image).ok_or_else(|| ImageError::Invalid("the kernel is no bzImage".into()))?;
    let kernel = decompress(payload.to_vec())?;
    if kernel.starts_with(b"\x7fELF") {
        Ok(kernel)
    } else {
        Err(ImageError::Invalid("the kernel inside the bzImage is no ELF file".into()))
    }
}

/// The compressed kernel. All forms but gzip are followed by the unpacked size in four bytes.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let field = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if image.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let sectors = match image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = ((sectors + 1) * 512).checked_add(field(PAYLOAD_OFFSET)?)?;
    let payload = image.get(start..start.checked_add(field(PAYLOAD_LENGTH)?)?)?;
    if payload.starts_with(b"\x1f\x8b") { Some(payload) } else { payload.get(..payload.len().checked_sub(4)?) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsString;
    use std::time::Duration;

    use crate::program::{Call, Program};

    fn compressed(name: &'static str, args: &[&str], input: &[u8]) -> Vec<u8> {
        let program = Program { name, package: name, limit: Duration::from_secs(10) };
        let mut bytes = Vec::new();
        let args = args.iter().map(OsString::from).collect();
        program.stream(&Call { args, input, ..Call::default() }, |out| out.read_to_end(&mut bytes)).unwrap();
        bytes
    }

    fn image(setup_sectors: u8, payload: &[u8]) -> Vec<u8> {
        let setup = (usize::from(if setup_sectors == 0 { 4 } else { setup_sectors }) + 1) * 512;
        let mut image = vec![0; setup + 77];
        image[SETUP_SECTORS] = setup_sectors;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&77u32.to_le_bytes());
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"what follows the kernel");
        image
    }

    #[test]
    fn finds_the_kernel_however_it_is_packed() {
        let kernel = b"\x7fELF kernel ".repeat(1000);
        for (name, args) in [("xz", &["-c"][..]), ("zstd", &["-cq"]), ("lz4", &["-lcq"])] {
            let mut payload = compressed(name, args, &kernel);
            payload.extend((kernel.len() as u32).to_le_bytes());
            assert!(vmlinux(&image(39, &payload)).unwrap() == kernel, "{name}");
        }
        assert!(vmlinux(&image(0, &compressed("gzip", &["-c"], &kernel))).unwrap() == kernel);
    }

    #[test]
    fn refuses_a_payload_that_is_no_kernel() {
        let payload = compressed("gzip", &["-c"], b"something else");
        assert!(matches!(vmlinux(&image(4, &payload)), Err(ImageError::Invalid(_))));
        assert!(matches!(vmlinux(&image(4, b"unknown")), Err(ImageError::Invalid(_))));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_read_outside(
            mut bytes in prop::collection::vec(any::<u8>(), 0x250..0x600), offset in any::<u32>(), length in any::<u32>(),
        ) {
            bytes[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
            bytes[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&offset.to_le_bytes());
            bytes[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
            let _ = payload(&bytes);
        }
    }
}

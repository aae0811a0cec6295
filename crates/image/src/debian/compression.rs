//! Unpacks what kernels and their modules are packed with, told apart by their first bytes.
//!
//! With the compressors' own programs: each is small and on most machines anyway, while pure Rust decoders for all of
//! them would be most of this program's code.

use std::time::Duration;

use crate::ImageError;
use crate::program::{Call, Program};

const LIMIT: Duration = Duration::from_secs(60);

/// Magic number, program and arguments of each form.
const FORMS: [(&[u8], Program, &[&str]); 4] = [
    (b"\xfd7zXZ\0", Program { name: "xz", package: "xz-utils", limit: LIMIT }, &["-dc"]),
    (b"\x28\xb5\x2f\xfd", Program { name: "zstd", package: "zstd", limit: LIMIT }, &["-dcq"]),
    (b"\x1f\x8b", Program { name: "gzip", package: "gzip", limit: LIMIT }, &["-dc"]),
    (b"\x02\x21\x4c\x18", Program { name: "lz4", package: "lz4", limit: LIMIT }, &["-dcq"]),
];

/// Returns the unpacked bytes; an ELF file as it is.
pub(crate) fn decompress(bytes: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    if bytes.starts_with(b"\x7fELF") {
        return Ok(bytes);
    }
    let Some((_, program, args)) = FORMS.iter().find(|(magic, ..)| bytes.starts_with(magic)) else {
        return Err(ImageError::Invalid("a kernel file is compressed in an unknown way".into()));
    };
    let args = args.iter().map(Into::into).collect();
    let mut unpacked = Vec::new();
    program.stream(&Call { args, input: &bytes, ..Call::default() }, |out| out.read_to_end(&mut unpacked))?;
    Ok(unpacked)
}

//! The check of uploaded archives, on bytes as they come and on bytes that are sound gzip.
//!
//! The module is compiled in here by itself: it needs one variant of the manager's error and none of its other parts.

#![no_main]

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/manager/src/vms/archive.rs"]
mod archive;

mod error {
    //! The part of the manager's error that the check uses.

    pub type Result<T> = std::result::Result<T, Error>;

    #[derive(Debug)]
    pub enum Error {
        Invalid(String),
    }
}

fuzz_target!(|data: &[u8]| {
    let _ = archive::check(Cursor::new(data));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).expect("memory does not fail");
    let sound = encoder.finish().expect("memory does not fail");
    if let Err(error::Error::Invalid(message)) = archive::check(Cursor::new(sound)) {
        assert!(!message.is_empty());
    }
});

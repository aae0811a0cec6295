//! Limits that both ends hold to.

/// Bytes of each of stdout and stderr that a collected run keeps (section 3 of the wire contract).
pub const OUTPUT_BYTES: u64 = 1_000_000;

/// Bytes of the JSON that a program leaves through the global `result`, for `result` and `error` together.
pub const RESULT_BYTES: u64 = 4 * 1024 * 1024;

/// Arrays and objects in one JSON text of an agent, a program's result among them.
pub const CONTAINERS: usize = 100_000;

/// Largest payload of one [`crate::frame::Frame`].
pub const FRAME_BYTES: usize = 64 * 1024;

/// Largest payload of a frame that carries JSON: a start message holds the code to run, an exit message its result.
pub const JSON_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// Largest JSON reply of a plain (unframed) agent call.
pub const REPLY_BYTES: usize = 1024 * 1024;

/// Compressed bytes of an uploaded archive (10 MiB, section 4 of the wire contract).
pub const ARCHIVE_BYTES: u64 = 10 * 1024 * 1024;

/// Bytes of an archive's files once unpacked (250 MiB, section 4 of the wire contract).
pub const UNPACKED_BYTES: u64 = 250 * 1024 * 1024;

/// Entries of an archive (section 4 of the wire contract).
pub const ARCHIVE_ENTRIES: u64 = 10_000;

/// uid and gid of every program that is run for a client.
pub const USER_ID: u32 = 1000;

/// Seconds after which an agent lets programs write again whatever the manager does.
pub const FROZEN_SECONDS: u64 = 10;

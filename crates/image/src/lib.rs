//! What a guest is made of on the host: images from the distribution's packages, the initramfs that carries the agent
//! into any image, and the writable disks.
//!
//! Everything here is synchronous and works on paths that the caller names; asynchronous callers use a blocking task.
//! This crate must not know about VMs, the store or the HTTP API.

pub mod debian;
pub mod disk;
pub mod initramfs;

mod cpio;
mod digest;
mod draft;
mod e2fsprogs;
mod error;
mod program;
mod progress;

pub use draft::remove_drafts;
pub use error::ImageError;
pub use progress::{Event, Progress};

//! The firewall against whoever is at the other end of a tap: these tests hold it as a hostile monitor would, and write
//! what they like. The host and the world are network namespaces of each test's own. They need root and nft, and say so
//! where they cannot run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod attacks;
mod crowd;
mod flush;
mod frames;
mod limits;
mod rig;

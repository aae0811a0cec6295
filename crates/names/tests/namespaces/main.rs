//! The resolver and the gate with real sockets: a guest, the host and the world in network namespaces that these tests
//! make. They need root and nft, and say so where they cannot run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod gate;
mod lab;
mod lookups;
#[path = "../../src/gate/hello_sample.rs"]
mod sample;

//! The manager without virtual machines: its API on a real socket, its store on both databases.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod access;
mod admin;
mod agents;
mod audit;
mod away;
mod bodies;
mod closing;
mod conformance;
mod copies;
mod idempotency;
mod images;
mod limits;
mod memory;
mod no_hypervisor;
mod recovery;
mod rekey;
mod resume;
mod rotation;
mod serving;
mod store;
mod test_app;
mod webhooks;

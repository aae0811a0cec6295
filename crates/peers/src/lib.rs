//! Providers and consumers: everything about a peer call that can be decided without touching the world.
//!
//! A provider declares in a manifest what its SDK offers; a consumer calls it by an alias. This crate reads manifests
//! ([`manifest`]) and holds arguments and results to the schemas in them ([`schema`]). It has no I/O. The server does not
//! use it yet: so far a VM has secrets of its own, and cannot be linked to another.

pub mod json;
pub mod manifest;
pub mod schema;

//! Providers and consumers: everything about a peer call that can be decided without touching the world.
//!
//! A provider declares in a manifest what its SDK offers; a consumer calls it by an alias. This crate has no I/O and no
//! clock.
//!
//! # The way of a link
//!
//! 1. [`manifest::parse`] reads the provider's manifest, or tells all that is wrong with it;
//!    [`manifest::ProviderFault::for_alias`] words that for clients.
//! 2. The provider's agent loads the declared modules; what is not there or not callable is a `ProviderFault` too.
//! 3. [`codegen::peer_tree`] makes the consumer's proxies and guide, [`codegen::index`] the list of its peers,
//!    [`runtime::files`] what the proxies import.
//!
//! # The way of a call
//!
//! 1. The consumer's code calls a proxy, the proxy the runtime, the runtime the consumer's agent on loopback, the agent
//!    the manager. The manager knows the consumer by the channel that the call came through.
//! 2. [`json::parse`] reads the call within bounds. The alias is one of the consumer's links, the module and the export
//!    are looked up in the provider's [`manifest::Manifest`]; what it does not declare does not exist.
//! 3. [`schema::ExportChecker::check_args`] holds the arguments to their schemas, [`policy::Policy::decide`] the call to what the
//!    link allows.
//! 4. The provider's agent has a warm worker make the call. [`schema::ExportChecker::check_result`] holds the result to
//!    its schema on the way back, and [`strike::Striker`] takes the provider's secrets out of it, or out of the error.
//! 5. [`audit::Head::append`] makes the record of it, whatever came of it.

pub mod audit;
pub mod codegen;
pub mod json;
pub mod manifest;
pub mod policy;
pub mod runtime;
pub mod schema;
pub mod strike;

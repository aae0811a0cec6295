//! Calls from one VM's code to another's: what the agents of both take part in. They decide nothing; the manager does.
//!
//! In a consumer, [`bridge`] hands on to the manager what code in the sandbox asks for, through [`outbound`]. [`trees`] are the
//! files that tell that code about its peers. In a provider, [`workers`] make the calls.

pub(crate) mod bridge;
mod changes;
mod command;
mod message;
pub(crate) mod outbound;
mod slot;
mod standing;
pub(crate) mod trees;
mod worker;
pub(crate) mod workers;

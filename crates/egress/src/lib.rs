//! What a guest may send and receive, enforced on the host, where the guest cannot reach it.
//!
//! Every VM has a tap of its own and there is no bridge, so the kernel routes each packet, and one nftables table of ours
//! decides on it. The table's rules never change: what differs between VMs are elements of its sets, so a packet costs
//! the same with one VM and with a thousand, and a change is a few elements in one transaction. What no element allows is
//! dropped; so a VM that is not known yet, or any more, reaches nothing.
//!
//! [`plan`] says what elements a VM has, [`ruleset`] renders text for `nft`; both are pure. [`Network`] runs it. This
//! crate must not know what a VM is, only that it has a number.

mod guard;
mod network;
mod nft;
pub mod plan;
mod report;
pub mod ruleset;
mod shut;
mod special;
mod state;
mod subnet;
mod system;

pub use network::{Network, Repaired, Settings};
pub use plan::{Guest, MAX_RATE, Policy};
pub use report::{Count, Counters, Denial};
pub use shut::shut;
pub use special::{AZURE_HOST, SPECIAL, is_special};
pub use subnet::{InvalidSubnet, Subnet};

use thiserror::Error;

/// Where the gate for TLS and HTTP by name listens, on the gateway's address.
pub const GATE_PORT: u16 = 15_080;

/// Why the network could not be changed. What was there before still holds.
#[derive(Debug, Error)]
pub enum EgressError {
    /// A request to the kernel failed.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// `nft` refused a transaction; nothing of it holds.
    #[error("nft refused: {0}")]
    Refused(String),
    /// `nft` did not end in time.
    #[error("nft did not answer in time")]
    Timeout,
}

impl EgressError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

//! What a server without a network does about one of an earlier server's.

use std::collections::BTreeSet;
use std::io;

use crate::network::blocking;
use crate::{EgressError, plan, system};

/// Takes down the taps of these guests, where no server of this host has the network: whatever an earlier one let them
/// have ends, and nobody gives it to them again but a start.
pub async fn shut(guests: Vec<u32>) -> Result<(), EgressError> {
    let down = move || {
        let ours: BTreeSet<String> = guests.into_iter().map(plan::tap).collect();
        let mut taps = system::taps()?;
        taps.retain(|tap| ours.contains(tap));
        if taps.is_empty() {
            return Ok(());
        }
        let _lock = match system::lock() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                tracing::warn!(?taps, "another server on this host has the network, and with it these taps");
                return Ok(());
            }
            lock => lock?,
        };
        for tap in &taps {
            system::disconnect(tap)?;
            tracing::warn!(tap, "a VM's network is taken from it: this server has none");
        }
        Ok(())
    };
    blocking(down, "take a tap down").await
}

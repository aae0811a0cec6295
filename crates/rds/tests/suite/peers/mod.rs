//! Peers: consumers call what providers declare (section 7 of the wire contract), on real VMs.

mod audit;
mod bridge;
mod calls;
mod canary;
mod files;
mod hostile_consumer;
mod hostile_provider;
mod links;
mod pause;
mod policy;
mod recovery;
mod rotation;
pub(crate) mod sdk;
mod snapshots;
pub(crate) mod stage;
mod types;

use crate::harness::Case;

pub(crate) fn cases() -> Vec<Case> {
    [
        audit::cases(),
        bridge::cases(),
        calls::cases(),
        canary::cases(),
        files::cases(),
        hostile_consumer::cases(),
        hostile_provider::cases(),
        links::cases(),
        pause::cases(),
        policy::cases(),
        recovery::cases(),
        rotation::cases(),
        snapshots::cases(),
        types::cases(),
    ]
    .concat()
}

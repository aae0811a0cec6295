//! Peers: consumers call what providers declare (section 7 of the wire contract), on real VMs.

mod bridge;
mod calls;
mod files;
mod hostile_consumer;
mod hostile_provider;
mod links;
mod policy;
mod sdk;
mod stage;

use crate::harness::Case;

pub(crate) fn cases() -> Vec<Case> {
    [
        bridge::cases(),
        calls::cases(),
        files::cases(),
        hostile_consumer::cases(),
        hostile_provider::cases(),
        links::cases(),
        policy::cases(),
    ]
    .concat()
}

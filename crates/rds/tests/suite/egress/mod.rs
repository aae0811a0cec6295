//! What VMs reach, with a world in a network namespace.

mod names;

use crate::harness::Case;

pub(crate) fn cases() -> Vec<Case> {
    names::cases()
}

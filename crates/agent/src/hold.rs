//! Holding the VM's programs still while its memory is copied.
//!
//! A copy's kernel has the random source of the VM that it was, until it is given another: a program that went on before that
//! would draw the same numbers in every copy. No device tells a kernel that it was copied before its programs go on: what
//! Firecracker has for that (VMGenID) is an interrupt that they may overtake, and QEMU's `microvm` has nothing. So programs
//! are held before the copy is made, and a copy comes up with them held. They go on when the manager says so in the VM itself,
//! and in a copy when its random source is its own. Nobody else lets them go on, and no time: in a copy it may be over at once.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep};

use crate::agent::Vm;
use crate::error::SystemError;
use crate::reply::Refusal;

/// How long programs may take to stand still. One that waits for a disk which does not answer takes as long as that.
const LIMIT: Duration = Duration::from_secs(5);

/// Between two looks whether they do.
const POLL: Duration = Duration::from_millis(1);

impl Vm {
    /// Returns when no program runs any more, nor will one that is started from now on.
    pub(crate) async fn hold(&self) -> Result<(), Refusal> {
        let (cgroups, begun) = (&self.keepers.cgroups, Instant::now());
        cgroups.hold(true).map_err(Refusal::internal)?;
        while !cgroups.stand_still().map_err(Refusal::internal)? {
            if begun.elapsed() > LIMIT {
                self.let_go().map_err(Refusal::internal)?;
                return Err(Refusal::new(StatusCode::CONFLICT, "its programs do not stand still"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Lets programs go on, whether they were held or not.
    pub(crate) fn let_go(&self) -> Result<(), SystemError> {
        self.keepers.cgroups.hold(false)
    }
}

//! Failures on purpose, so that tests can show that a start which fails at any step leaves nothing, and that new secrets get
//! where they are to be.
//!
//! `RDS_FAULT=STEP` makes whatever comes to that step fail there; `RDS_FAULT=kill:STEP` ends the manager there, as `kill -9`
//! would; `RDS_FAULT=clock:SECONDS` lets its clock be off by so much, `RDS_FAULT=clock-in:FILE` by what is in that file
//! ([`crate::clock`]). It is read once, from the manager's environment alone.

use crate::error::{Error, Result};

/// A point in the start of a VM or in the replacement of its secrets, just before what it is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The VM's row is written, its directory is not.
    Directory,
    /// The directory is there, the disk is not.
    Disk,
    /// The disk is there, the tap is not.
    Tap,
    /// The tap is there and no rule is.
    Rules,
    /// The network is ready, the machine is not there.
    Boot,
    /// The machine runs, the agent has not answered.
    Connect,
    /// The agent has answered and knows nothing.
    Configure,
    /// The guest is configured; nobody has been told.
    Ready,
    /// New secrets of a VM that runs are written down, its agent does not have them.
    Secrets,
}

const STEPS: [(&str, Step); 9] = [
    ("tap", Step::Tap),
    ("directory", Step::Directory),
    ("disk", Step::Disk),
    ("rules", Step::Rules),
    ("boot", Step::Boot),
    ("connect", Step::Connect),
    ("configure", Step::Configure),
    ("ready", Step::Ready),
    ("secrets", Step::Secrets),
];

/// The failure that was ordered, if any.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults(Option<(Step, Kind)>);

#[derive(Debug, Clone, Copy)]
enum Kind {
    Fail,
    Kill,
}

impl Faults {
    /// Reads `RDS_FAULT`. An unknown step is an error, so that a test can't pass for want of a fault.
    pub(super) fn from_env() -> Result<Self> {
        let Some(order) = std::env::var_os("RDS_FAULT") else { return Ok(Self::default()) };
        let order = order.to_string_lossy();
        let of_clock = order.strip_prefix("clock:").is_some_and(|seconds| seconds.parse::<i64>().is_ok());
        if of_clock || order.starts_with("clock-in:/") {
            return Ok(Self::default());
        }
        let (name, kind) = match order.strip_prefix("kill:") {
            Some(name) => (name, Kind::Kill),
            None => (&*order, Kind::Fail),
        };
        match STEPS.iter().find(|(known, _)| *known == name) {
            Some((_, step)) => Ok(Self(Some((*step, kind)))),
            None => Err(Error::Invalid(format!("RDS_FAULT: there is no step {name:?}"))),
        }
    }

    /// Fails here if that was ordered.
    pub(super) fn at(self, here: Step) -> Result<()> {
        match self.0 {
            Some((step, Kind::Fail)) if step == here => {
                Err(Error::Unavailable(format!("RDS_FAULT made this fail at step {here:?}")))
            }
            Some((step, Kind::Kill)) if step == here => {
                let ended = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                Err(Error::internal("RDS_FAULT could not end the manager", format!("{ended:?}")))
            }
            _ => Ok(()),
        }
    }
}

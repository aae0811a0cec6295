//! How a VM came up the last time, and how long each part of that took.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::vms::VmRow;

/// How long each part of a start took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Timings {
    /// Until it was its turn, and the image was looked up.
    pub queue_ms: f64,
    /// Making the writable disk and the initramfs.
    pub disk_ms: f64,
    /// Making the network interface and its rules.
    pub network_ms: f64,
    /// Starting the virtual machine monitor, if the VM was booted.
    pub boot_ms: f64,
    /// Restoring the machine from a seed, if it was not booted.
    pub restore_ms: f64,
    /// Until the agent's first answer.
    pub agent_ms: f64,
    /// Telling the guest who it is.
    pub configure_ms: f64,
    /// Putting its peers in place.
    pub peers_ms: f64,
    /// All of the start.
    pub total_ms: f64,
}

impl Timings {
    /// The parts by name, without those that there were none of.
    pub(super) fn steps(&self) -> Vec<(&'static str, f64)> {
        let steps = [
            ("queue", self.queue_ms),
            ("disk", self.disk_ms),
            ("network", self.network_ms),
            ("boot", self.boot_ms),
            ("restore", self.restore_ms),
            ("agent", self.agent_ms),
            ("configure", self.configure_ms),
            ("peers", self.peers_ms),
        ];
        steps.into_iter().filter(|(_, ms)| *ms > 0.0).collect()
    }
}

/// How a VM came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartedFrom {
    /// From its kernel.
    Boot,
    /// From the memory of an idle machine.
    Seed,
    /// From an idle machine that ran already.
    Pool,
    /// From another VM's memory.
    Snapshot,
}

impl StartedFrom {
    /// The word of the wire contract.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Seed => "seed",
            Self::Pool => "pool",
            Self::Snapshot => "snapshot",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Boot, Self::Seed, Self::Pool, Self::Snapshot].into_iter().find(|from| from.as_str() == text)
    }
}

/// The last start of a VM.
#[derive(Debug, Clone)]
pub(crate) struct LastStart {
    pub from: StartedFrom,
    pub timings: Timings,
    /// What the memory of its machine depends on, see [`Seeds::fits`]; `None` if an older server started it.
    ///
    /// [`Seeds::fits`]: crate::seeds::Seeds::fits
    pub fits: Option<String>,
}

impl LastStart {
    /// The start that was written down, if there was one.
    pub(super) fn from_row(row: &VmRow) -> Option<Self> {
        let from = StartedFrom::parse(row.started_from.as_deref()?)?;
        Some(Self { from, timings: serde_json::from_str(&row.timings).ok()?, fits: row.fits.clone() })
    }
}

/// Milliseconds since `begun`, to the microsecond.
pub(super) fn milliseconds(begun: Instant) -> f64 {
    (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// Time since the last look.
pub(super) struct Lap(Instant);

impl Lap {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn take(&mut self) -> f64 {
        milliseconds(std::mem::replace(&mut self.0, Instant::now()))
    }
}

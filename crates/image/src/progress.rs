//! How a long piece of work tells where it is, and is told to stop.

use std::time::{Duration, Instant};

use crate::ImageError;

/// Something that happened in a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A step began. At most one is under way.
    Started {
        /// What is being done, for a person.
        step: &'static str,
    },
    /// The step moved on.
    Advanced {
        /// Bytes done.
        done: u64,
        /// Bytes in all, if they are known.
        total: Option<u64>,
    },
    /// The step is done.
    Finished {
        /// The name it was started with.
        step: &'static str,
        /// How long it took.
        took: Duration,
    },
}

/// Receives a build's events.
pub trait Progress: Sync {
    /// Called for every event, on the building thread; must return soon.
    fn event(&self, event: Event);

    /// Whether the build should stop and remove what it made. Asked several times a second, from any thread.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Runs one step of a build.
pub(crate) fn step<T>(
    progress: &dyn Progress,
    name: &'static str,
    work: impl FnOnce() -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    if progress.cancelled() {
        return Err(ImageError::Cancelled);
    }
    progress.event(Event::Started { step: name });
    let start = Instant::now();
    let result = work()?;
    progress.event(Event::Finished { step: name, took: start.elapsed() });
    Ok(result)
}

//! Which versions of QEMU the driver is made for.

use std::path::Path;

use crate::{HypervisorError, Version};

/// The oldest one (Debian 12).
pub const OLDEST: Version = Version { major: 7, minor: 2, patch: 0 };

/// From this version on a read-only file can back writable private memory (`rom=off`).
pub(super) const READ_ONLY_TEMPLATES: Version = Version { major: 8, minor: 2, patch: 0 };

/// From this version on an emulated `cmpxchg16b` leaves whole flags behind. Before, it overwrote an operand from which the
/// flags of an earlier instruction were still to be worked out.
pub(super) const WHOLE_FLAGS: Version = Version { major: 8, minor: 0, patch: 0 };

/// Asks a program.
pub async fn version_of(program: &Path) -> Result<Version, HypervisorError> {
    Version::of(program, "QEMU emulator version ").await
}

//! How fast a guest may use its disk.

use std::path::Path;

use serde_json::json;

use super::arguments::DISK_DEVICE;
use super::qmp::Qmp;
use crate::HypervisorError;
use crate::hypervisor::DiskLimits;

/// Sets all limits of the disk's device. QEMU's own copies of the disk, and what it writes when the machine is paused, are
/// not held up by them.
pub(super) async fn set(dir: &Path, limits: DiskLimits) -> Result<(), HypervisorError> {
    // To QEMU, 0 is no limit.
    let (bytes, ops) = (limits.bytes_per_second.unwrap_or(0), limits.ops_per_second.unwrap_or(0));
    let arguments = json!({
        "id": DISK_DEVICE, "bps": bytes, "bps_rd": 0, "bps_wr": 0, "iops": ops, "iops_rd": 0, "iops_wr": 0,
    });
    Qmp::open(dir).await?.execute("block_set_io_throttle", arguments).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::qmp::tests::monitor_that_keeps;

    #[tokio::test]
    async fn what_is_not_limited_is_said_to_be_so() {
        let answers = b"{\"QMP\":{}}\n{\"return\":{}}\n{\"return\":{}}\n".to_vec();
        let (dir, said) = monitor_that_keeps(answers);
        let limits = DiskLimits { bytes_per_second: Some(2_000_000), ops_per_second: None };
        set(dir.path(), limits).await.unwrap();
        let said = said.join().unwrap();
        insta::assert_snapshot!(said.lines().last().unwrap());
    }
}

//! How much of its memory a guest is asked to keep to.

use std::path::Path;

use serde_json::json;

use super::qmp::Qmp;
use crate::HypervisorError;
use crate::hypervisor::MemoryLimit;

/// Sets what is to be outside of the balloon, as QEMU counts it. The guest is told, also if it was told the same before.
pub(super) async fn set(dir: &Path, limit: MemoryLimit) -> Result<(), HypervisorError> {
    let kept = u64::from(limit.of_mib - limit.balloon_mib()) << 20;
    Qmp::open(dir).await?.execute("balloon", json!({"value": kept})).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::qmp::tests::monitor_that_keeps;

    #[tokio::test]
    async fn what_is_kept_is_said_in_bytes() {
        for (kept_mib, bytes) in [(128, 128 << 20), (256, 256 << 20), (512, 256 << 20)] {
            let answers = b"{\"QMP\":{}}\n{\"return\":{}}\n{\"return\":{}}\n".to_vec();
            let (dir, said) = monitor_that_keeps(answers);
            set(dir.path(), MemoryLimit { of_mib: 256, kept_mib }).await.unwrap();
            let said = said.join().unwrap();
            let order: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
            assert_eq!(order, json!({"execute": "balloon", "arguments": {"value": bytes}}));
        }
    }
}

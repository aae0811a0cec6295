//! A machine that QEMU has stopped because a write to the host's disk failed for want of room. Nothing is lost: the write is
//! tried again when it goes on.

use std::path::Path;

use serde_json::Value;

use super::qmp::Qmp;
use crate::HypervisorError;

/// Whether a machine is, by the answer to `query-status`. One that was paused is not, whatever happened to its writes.
pub(super) fn is_stalled(status: &Value) -> bool {
    status["status"] == "io-error"
}

/// Lets a machine go on if it is. Nobody else's command comes in between: QEMU hears one connection at a time.
pub(super) async fn retry(dir: &Path) -> Result<(), HypervisorError> {
    let mut qmp = Qmp::open(dir).await?;
    if is_stalled(&qmp.execute("query-status", Value::Null).await?) {
        qmp.execute("cont", Value::Null).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::qmp::tests::monitor_that_keeps;

    #[tokio::test]
    async fn only_one_that_waits_for_room_goes_on() {
        for (status, goes_on) in [("io-error", true), ("paused", false), ("running", false), ("inmigrate", false)] {
            let answers = format!(
                "{{\"QMP\":{{}}}}\n{{\"return\":{{}}}}\n{{\"return\":{{\"status\":\"{status}\"}}}}\n{{\"return\":{{}}}}\n"
            );
            let (dir, said) = monitor_that_keeps(answers.into_bytes());
            retry(dir.path()).await.unwrap();
            let said = said.join().unwrap();
            assert_eq!(said.contains("\"cont\""), goes_on, "{status}: {said}");
        }
    }
}

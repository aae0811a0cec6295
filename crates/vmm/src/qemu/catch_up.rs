//! Making a copy of a machine's disk whole that was begun while the machine wrote to it.
//!
//! QEMU notes which parts of the disk are written to (a dirty bitmap), and copies those alone when nothing is written any
//! more (a backup job). So what has to wait for that is as long as what was written meanwhile, not as the disk. All names
//! are fixed: what a manager left that died is removed by the next one.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::qmp::Qmp;
use crate::HypervisorError;

/// The disk, see `arguments.rs`.
const DISK: &str = "disk";

/// Name of the bitmap, of the copy and of the job.
const COPY: &str = "copy";

/// Bytes of the disk for each bit. What is copied twice for a small write is little, and so is the bitmap.
const GRANULARITY: u32 = 64 * 1024;

/// How long the parts that changed may take to be copied; a guest is not frozen for longer.
const LIMIT: Duration = Duration::from_secs(10);

/// Pause between two looks at the job.
const POLL: Duration = Duration::from_millis(1);

/// Begins to note what is written.
pub(super) async fn watch(dir: &Path) -> Result<(), HypervisorError> {
    let mut qmp = Qmp::open(dir).await?;
    clear(&mut qmp).await;
    let bitmap = json!({"node": DISK, "name": COPY, "granularity": GRANULARITY});
    qmp.execute("block-dirty-bitmap-add", bitmap).await.map(drop)
}

/// Copies what was written since then.
pub(super) async fn copy(dir: &Path, to: &Path) -> Result<(), HypervisorError> {
    let copy = File::options().read(true).write(true).open(to).map_err(HypervisorError::io("the copy of a disk"))?;
    let mut qmp = Qmp::open(dir).await?;
    let set = qmp.execute_with("add-fd", Value::Null, copy.as_fd()).await?["fdset-id"].clone();
    let file = format!("/dev/fdset/{set}");
    // Whoever wants it on the storage syncs it.
    let cache = json!({"no-flush": true});
    let node = json!({"driver": "file", "node-name": COPY, "filename": file, "locking": "off", "cache": cache});
    qmp.execute("blockdev-add", node).await?;
    // The node holds it now.
    qmp.execute("remove-fd", json!({"fdset-id": set})).await?;
    let job = json!({
        "job-id": COPY, "device": DISK, "target": COPY, "sync": "bitmap", "bitmap": COPY, "bitmap-mode": "never",
        "auto-dismiss": false,
    });
    qmp.execute("blockdev-backup", job).await?;
    timeout(LIMIT, concluded(&mut qmp)).await.map_err(|_| HypervisorError::Timeout("copying what changed on a disk"))?
}

/// Ends it, and removes whatever of it is there.
pub(super) async fn unwatch(dir: &Path) -> Result<(), HypervisorError> {
    clear(&mut Qmp::open(dir).await?).await;
    Ok(())
}

/// Waits for the job's end.
async fn concluded(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    loop {
        let jobs = qmp.execute("query-jobs", Value::Null).await?;
        let job = jobs.as_array().into_iter().flatten().find(|job| job["id"] == COPY);
        let job = job.ok_or_else(|| HypervisorError::io("the copy of a disk")(io::Error::other("its job is gone")))?;
        match (job["status"].as_str(), job["error"].as_str()) {
            (Some("concluded"), None) => return Ok(()),
            (Some("concluded"), Some(error)) => {
                return Err(HypervisorError::refused("blockdev-backup", error));
            }
            _ => sleep(POLL).await,
        }
    }
}

/// Removes what is there; what is not there need not be.
async fn clear(qmp: &mut Qmp) {
    if qmp.execute("job-cancel", json!({"id": COPY})).await.is_ok() {
        let _ = timeout(LIMIT, concluded(qmp)).await;
    }
    let parts = [
        ("job-dismiss", json!({"id": COPY})),
        ("blockdev-del", json!({"node-name": COPY})),
        ("block-dirty-bitmap-remove", json!({"node": DISK, "name": COPY})),
    ];
    for (command, arguments) in parts {
        if let Err(error) = qmp.execute(command, arguments).await {
            tracing::trace!(%error, command, "nothing is left of a copy of a disk");
        }
    }
}

//! VMs that go on while their agents are slow.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rds_manager::App;
use rds_vmm::{Hypervisor, VmId};
use serde_json::json;
use tokio::time::sleep;

use crate::agents::{Agents, SLOW, config, vm};

#[tokio::test]
async fn a_vm_whose_clock_cannot_be_read_in_time_can_be_deleted_soon() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let monitor = Arc::clone(&machines) as Arc<dyn Hypervisor>;
    let app = App::start_with(config(root.path()).unwrap(), monitor).await.unwrap();
    let id: VmId = app.vms.create(vm(&json!([])).unwrap()).await.unwrap().id.parse().unwrap();
    app.vms.pause_vm(id).await.unwrap();
    machines.known.slow.store(true, Relaxed);
    let begun = Instant::now();
    let deleting = async {
        // Its agent is reached by then.
        sleep(SLOW / 5).await;
        app.vms.delete_vm(id).await
    };
    let (resumed, deleted) = tokio::join!(app.vms.resume_vm(id), deleting);
    resumed.unwrap();
    deleted.unwrap();
    // One reading and one correction, though the reading is no good.
    assert!(begun.elapsed() < 4 * SLOW, "{:?}", begun.elapsed());
}

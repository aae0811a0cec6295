//! VMs that go on while their agents are slow.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rds_manager::vms::state::VmState;
use rds_manager::{App, Error};
use rds_vmm::{Hypervisor, VmId};
use serde_json::json;
use tokio::time::sleep;

use crate::agents::{Agents, SLOW, config, vm};

/// A server with a VM that is paused.
async fn paused(root: &Path, machines: &Arc<Agents>) -> (Arc<App>, VmId) {
    let monitor = Arc::clone(machines) as Arc<dyn Hypervisor>;
    let app = App::start_with(config(root).unwrap(), monitor).await.unwrap();
    let id = app.vms.create(vm(&json!([])).unwrap()).await.unwrap().id.parse().unwrap();
    app.vms.pause_vm(id).await.unwrap();
    (app, id)
}

#[tokio::test]
async fn a_vm_whose_clock_cannot_be_read_in_time_can_be_deleted_soon() {
    let (root, machines) = (tempfile::tempdir().unwrap(), Arc::new(Agents::new()));
    let (app, id) = paused(root.path(), &machines).await;
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

#[tokio::test]
async fn a_paused_vm_that_cannot_go_on_now_can_later() {
    let (root, machines) = (tempfile::tempdir().unwrap(), Arc::new(Agents::new()));
    let (app, id) = paused(root.path(), &machines).await;
    machines.known.stuck.store(true, Relaxed);
    let used = async || app.vms.stat_file(id, "sdk.ts").await.map(drop);
    for refused in [app.vms.resume_vm(id).await, used().await, app.vms.sync_peers(id).await, app.vms.stop_vm(id).await]
    {
        assert!(matches!(refused, Err(Error::Internal(_))), "{refused:?}");
        assert_eq!(app.vms.get(id).unwrap().state, VmState::Paused);
    }
    machines.known.stuck.store(false, Relaxed);
    used().await.unwrap();
    assert_eq!(app.vms.get(id).unwrap().state, VmState::Running);
    app.vms.stop_vm(id).await.unwrap();
}

//! Copies of machines' memory, over machines that have none.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rds_manager::App;
use rds_manager::secrets::SecretEnv;
use rds_vmm::{Hypervisor, VmId};
use serde_json::json;

use crate::agents::{Agents, config};

async fn start(root: &Path, machines: &Arc<Agents>) -> (Arc<App>, VmId) {
    let monitor = Arc::clone(machines) as Arc<dyn Hypervisor>;
    let app = App::start_with(config(root).unwrap(), monitor).await.unwrap();
    let request = serde_json::from_value(json!({"cpu": 1, "memMb": 128, "allowIps": []})).unwrap();
    let vm = app.vms.create(request).await.unwrap();
    (app, vm.id.parse().unwrap())
}

fn snapshots_in(root: &Path) -> usize {
    std::fs::read_dir(root.join("storage/snapshots")).unwrap().count()
}

#[tokio::test]
async fn secrets_that_come_while_memory_is_saved_are_in_no_copy() {
    let (root, machines) = (tempfile::tempdir().unwrap(), Arc::new(Agents::new()));
    let (app, id) = start(root.path(), &machines).await;
    let known = &machines.known;
    known.save.notify_one();
    app.vms.take_memory_snapshot(id, None).await.unwrap();
    assert!(known.keeps.load(Relaxed));
    assert_eq!(snapshots_in(root.path()), 1);
    known.saving.notified().await;

    let secret = SecretEnv::parse(vec!["KEY=a-secret-of-some-length".to_owned()]).unwrap();
    let rotation = async {
        known.saving.notified().await;
        app.vms.set_secrets(id, secret).await.unwrap();
        known.save.notify_one();
    };
    let (taken, ()) = tokio::join!(app.vms.take_memory_snapshot(id, None), rotation);
    let refused = taken.unwrap_err().to_string();
    assert!(refused.contains("has had secrets"), "{refused}");
    assert!(!known.keeps.load(Relaxed));
    assert_eq!(snapshots_in(root.path()), 1, "nothing is left of it");
    assert_eq!(app.vms.snapshots().list().await.unwrap().len(), 1);
}

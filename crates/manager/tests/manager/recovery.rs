//! What becomes of VMs that cannot be brought in order, or of which nothing can be written down, over agents that answer
//! from memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rds_manager::App;
use rds_manager::vms::state::VmState;
use rds_vmm::hypervisor::MAX_BOOTS;
use rds_vmm::{Hypervisor, VmId};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::agents::{Agents, config, vm};
use crate::away;

async fn start(root: &Path, machines: &Arc<Agents>) -> Arc<App> {
    App::start_with(config(root).unwrap(), Arc::clone(machines) as Arc<dyn Hypervisor>).await.unwrap()
}

async fn create(app: &App) -> VmId {
    app.vms.create(vm(&json!([])).unwrap()).await.unwrap().id.parse().unwrap()
}

/// Makes two VMs, and has the first one's row changed by a manager that ends then.
fn two(root: &Path, machines: &Arc<Agents>, change: impl AsyncFnOnce(&App, &str)) -> [VmId; 2] {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let app = start(root, machines).await;
        let vms = [create(&app).await, create(&app).await];
        change(&app, &vms[0].to_string()).await;
        vms
    })
}

async fn host_index(app: &App, vm: VmId) -> i64 {
    app.store.vm(&vm.to_string()).await.unwrap().unwrap().host_index
}

/// Waits until a VM is shown as broken.
async fn broken(app: &App, vm: VmId) {
    while !app.vms.get(vm).is_ok_and(|vm| vm.state == VmState::Error) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_machine_that_does_not_end_keeps_no_other_vm_from_being_served() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let [first, second] = two(root.path(), &machines, async |app, vm| {
        app.store.set_vm_state(vm, "DELETED", None).await.unwrap();
    });
    machines.known.endless.store(true, Relaxed);
    Runtime::new().unwrap().block_on(async {
        let app = start(root.path(), &machines).await;
        assert_eq!(app.vms.get(second).unwrap().state, VmState::Running);
        broken(&app, first).await;
        let third = create(&app).await;
        assert_ne!(host_index(&app, third).await, host_index(&app, first).await, "it would run as the same user");
        app.vms.delete_vm(first).await.unwrap_err();
        broken(&app, first).await;
        machines.known.endless.store(false, Relaxed);
        app.vms.delete_vm(first).await.unwrap();
        assert!(app.vms.get(first).is_err());
    });
}

#[test]
fn a_paused_machine_that_cannot_be_taken_up_is_ended() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let [first, _] = two(root.path(), &machines, async |app, vm| app.vms.pause_vm(vm.parse().unwrap()).await.unwrap());
    machines.known.restless.store(true, Relaxed);
    Runtime::new().unwrap().block_on(async {
        let app = start(root.path(), &machines).await;
        while app.vms.get(first).unwrap().state != VmState::Stopped {
            tokio::task::yield_now().await;
        }
        app.vms.start_vm(first).await.unwrap();
    });
}

#[tokio::test]
async fn a_machine_with_a_wrong_timer_is_booted_again() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let app = start(root.path(), &machines).await;
    machines.known.mistimed.store(2, Relaxed);
    let vm = create(&app).await;
    assert_eq!(app.vms.get(vm).unwrap().state, VmState::Running);
    assert_eq!(machines.known.boots.swap(0, Relaxed), 3);
    // Not for ever.
    machines.known.mistimed.store(u32::MAX, Relaxed);
    app.vms.create(crate::agents::vm(&json!([])).unwrap()).await.unwrap_err();
    assert_eq!(machines.known.boots.load(Relaxed), MAX_BOOTS);
}

#[test]
fn a_row_that_cannot_be_read_keeps_its_files_and_no_other_vm_from_being_served() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let [first, second] = two(root.path(), &machines, async |app, vm| {
        app.store.set_vm_network(vm, false, "no list", "[]").await.unwrap();
    });
    Runtime::new().unwrap().block_on(async {
        let app = start(root.path(), &machines).await;
        assert_eq!(app.vms.get(second).unwrap().state, VmState::Running);
        assert!(app.vms.get(first).is_err());
        assert!(root.path().join("storage/vms").join(first.to_string()).join("disk.ext4").exists());
        let third = create(&app).await;
        assert_ne!(host_index(&app, third).await, host_index(&app, first).await, "it would run as the same user");
    });
}

/// How often it was told that a VM was deleted.
async fn told_deleted(app: &App, vm: VmId) -> usize {
    let events = app.store.activity(100).await.unwrap();
    let of = vm.to_string();
    events.iter().filter(|event| event.kind == "vm.deleted" && event.entity_id.as_ref() == Some(&of)).count()
}

#[test]
fn a_deletion_that_an_earlier_manager_began_is_told_once() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let [deleted, half_made] = two(root.path(), &machines, async |app, vm| {
        app.store.set_vm_state(vm, "DELETED", None).await.unwrap();
        let other = app.vms.list().pop().unwrap().id;
        app.store.set_vm_state(&other, "CREATED", None).await.unwrap();
    });
    for _ in 0..2 {
        Runtime::new().unwrap().block_on(async {
            let app = start(root.path(), &machines).await;
            assert_eq!(app.vms.list().len(), 0);
            assert_eq!((told_deleted(&app, deleted).await, told_deleted(&app, half_made).await), (1, 0));
        });
    }
}

async fn written(app: &App, vm: VmId) -> String {
    app.store.vm(&vm.to_string()).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_vm_is_stopped_though_that_cannot_be_written_down() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let app = start(root.path(), &machines).await;
    let [asked, crashed] = [create(&app).await, create(&app).await];
    away::go(root.path(), "UPDATE OF state ON vms").await;
    app.vms.stop_vm(asked).await.unwrap();
    machines.known.ended.notify_one();
    for vm in [asked, crashed] {
        while app.vms.get(vm).unwrap().state != VmState::Stopped {
            tokio::task::yield_now().await;
        }
        assert_eq!(written(&app, vm).await, "RUNNING");
    }
    app.vms.start_vm(asked).await.unwrap_err();
    assert_eq!(app.vms.get(asked).unwrap().state, VmState::Stopped, "it can be started later");
    away::come_back(root.path()).await;
    app.vms.start_vm(asked).await.unwrap();
    assert_eq!(app.vms.get(asked).unwrap().state, VmState::Running);
    while written(&app, crashed).await != "STOPPED" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let why = app.store.vm(&crashed.to_string()).await.unwrap().unwrap().error;
    assert_eq!(why.as_deref(), Some("Its machine ended by itself"));
}

#[tokio::test]
async fn a_vm_is_removed_though_that_cannot_be_written_down() {
    let root = tempfile::tempdir().unwrap();
    let machines = Arc::new(Agents::new());
    let app = start(root.path(), &machines).await;
    let [first, second] = [create(&app).await, create(&app).await];
    let dir = |vm: VmId| root.path().join("storage/vms").join(vm.to_string());
    away::go(root.path(), "UPDATE OF state ON vms").await;
    app.vms.delete_vm(first).await.unwrap();
    assert!(app.vms.get(first).is_err() && !dir(first).exists());
    assert!(app.store.vm(&first.to_string()).await.unwrap().is_none());
    away::come_back(root.path()).await;
    // Its row stays, so it can be seen; but its machine is gone.
    away::go(root.path(), "DELETE ON vms").await;
    app.vms.delete_vm(second).await.unwrap_err();
    broken(&app, second).await;
    assert!(!dir(second).exists());
    away::come_back(root.path()).await;
    // Nor is it gone as long as nobody can be told.
    away::go(root.path(), "INSERT ON activity").await;
    app.vms.delete_vm(second).await.unwrap_err();
    broken(&app, second).await;
    away::come_back(root.path()).await;
    assert!(app.store.vm(&second.to_string()).await.unwrap().is_some());
    app.vms.delete_vm(second).await.unwrap();
    assert!(app.vms.get(second).is_err());
    assert_eq!((told_deleted(&app, first).await, told_deleted(&app, second).await), (1, 1));
}

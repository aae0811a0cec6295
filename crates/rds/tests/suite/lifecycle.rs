//! Stop, start, and what is kept.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{World, cases, groups, processes};

cases![
    stop_and_start_keep_the_workspace,
    states_allow_what_they_allow,
    a_vm_is_removed_in_any_state,
    a_vm_whose_process_dies_is_not_running,
    a_vm_that_does_not_answer_can_be_stopped_and_has_its_end,
    many_stops_at_once_make_one,
    ten_vms_at_once,
    any_size_of_disk_makes_one,
    a_vm_has_the_limits_of_its_control_group needs "control groups of VMs",
    a_kernel_leaves_alone_what_its_processor_gets_wrong,
];

async fn stop_and_start_keep_the_workspace(world: &World) {
    let (api, vm) = world.own_vm(json!({})).await;
    // What is synced by hand is on the host's disk, too.
    api.sh(&vm, "! grep nobarrier /proc/mounts").await;
    // Not synced by hand: stopping does.
    api.sh(&vm, "mkdir -p d && echo kept > d/f && chmod 750 d && head -c 3000000 /dev/urandom > big").await;
    let before = api.sh(&vm, "sha256sum big; cat /proc/sys/kernel/random/boot_id").await;
    let path = format!("/v1/vms/{vm}");
    api.poke(&format!("{path}/stop")).await.status(204);
    assert_eq!(api.get(&path).await.ok().json()["state"], "STOPPED");
    api.poke(&format!("{path}/start")).await.status(204);
    assert_eq!(api.get(&path).await.ok().json()["state"], "RUNNING");
    let after = api.sh(&vm, "sha256sum big; cat /proc/sys/kernel/random/boot_id").await;
    assert_eq!(before.lines().next(), after.lines().next(), "the file changed");
    assert_ne!(before.lines().nth(1), after.lines().nth(1), "it did not boot");
    assert_eq!(api.sh(&vm, "cat d/f; stat -c %a d").await, "kept\n750");
    api.delete(&path).await.status(204);
}

async fn a_vm_has_the_limits_of_its_control_group(world: &World) {
    let server = world.own_server(&[("ENABLE_SNAPSHOTS", "false")]).await;
    let vm = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    let [pid] = server.vm_processes()[..] else { panic!("one process") };
    let group = groups::of(pid).expect("it runs in a group");
    assert!(group.ends_with(format!("rds-vms/{vm}")), "{}", group.display());
    let limit = |file: &str| std::fs::read_to_string(group.join(file)).expect("a limit").trim().to_owned();
    // 128 MiB beside its memory, a processor beside its own.
    let limits = ["memory.max", "pids.max", "cpu.max"].map(limit);
    assert_eq!(limits, ["268435456", "33", "200000 100000"]);
    let all = group.parent().expect("it is below another").join("memory.swap.max");
    if all.exists() {
        assert_eq!(std::fs::read_to_string(all).expect("a limit"), "0\n");
    }
    server.api().delete(&format!("/v1/vms/{vm}")).await.status(204);
    assert!(!group.exists());
    server.assert_no_trace().await;
}

async fn states_allow_what_they_allow(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    api.poke(&format!("{path}/start")).await.status(409);
    api.poke(&format!("{path}/stop")).await.status(204);
    api.poke(&format!("{path}/stop")).await.status(409);
    for (call, body) in [
        ("exec", json!({"cmd": "true"})),
        ("exec/stream", json!({"cmd": "true"})),
        ("run-ts", json!({"code": "1"})),
        ("run-js", json!({"code": "1"})),
    ] {
        api.post(&format!("{path}/{call}"), &body).await.status(409);
    }
    api.get(&format!("{path}/files/download?path=/workspace")).await.status(409);
    api.get(&format!("{path}/files/stat?path=/workspace")).await.status(409);
    api.get(&format!("{path}/exec-logs")).await.ok();
    api.get(&format!("{path}/logs")).await.ok();
    api.poke(&format!("{path}/start")).await.status(204);
    api.sh(&vm, "true").await;
    api.delete(&path).await.status(204);
}

async fn a_vm_is_removed_in_any_state(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    api.poke(&format!("{path}/stop")).await.status(204);
    api.delete(&path).await.status(204);
    // While a command runs: the command's caller gets an error or a result, never silence.
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    let exec_path = format!("{path}/exec");
    let body = json!({"cmd": "sleep 60", "timeoutMs": 100_000});
    let running = api.post(&exec_path, &body);
    let removing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        api.delete(&path).await.status(204)
    };
    let (reply, _) = tokio::join!(running, removing);
    assert!(reply.status >= 400, "{reply:?}");
    api.get(&path).await.status(404);
}

async fn a_vm_whose_process_dies_is_not_running(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = crate::harness::create(&api, json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    for pid in server.vm_processes() {
        processes::kill(pid);
    }
    let begun = Instant::now();
    while api.get(&path).await.ok().json()["state"] == "RUNNING" {
        assert!(begun.elapsed().as_secs() < 15, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    api.post(&format!("{path}/exec"), &json!({"cmd": "true"})).await.status(409);
    api.delete(&path).await.status(204);
    server.assert_no_trace().await;
}

async fn a_vm_that_does_not_answer_can_be_stopped_and_has_its_end(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let stopped = crate::harness::create(&api, json!({"memMb": 128})).await;
    let short_lived = crate::harness::create(&api, json!({"memMb": 128, "ttlSeconds": 60})).await;
    let begun = Instant::now();
    for pid in server.vm_processes() {
        processes::signal(pid, Signal::STOP);
    }
    // The server is sure of it when a ping was not answered for 30 s.
    tokio::time::sleep(Duration::from_secs(42)).await;
    let path = format!("/v1/vms/{stopped}");
    assert_eq!(api.get(&path).await.ok().json()["state"], "RUNNING");
    api.poke(&format!("{path}/stop")).await.status(204);
    assert_eq!(api.get(&path).await.ok().json()["state"], "STOPPED");
    while api.get(&format!("/v1/vms/{short_lived}")).await.status != 404 {
        assert!(begun.elapsed().as_secs() < 90, "it is still there");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    api.poke(&format!("{path}/start")).await.status(204);
    api.sh(&stopped, "true").await;
    api.delete(&path).await.status(204);
    server.assert_no_trace().await;
}

async fn many_stops_at_once_make_one(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let stop = format!("/v1/vms/{vm}/stop");
    let replies = futures_util::future::join_all((0..5).map(|_| api.poke(&stop))).await;
    let done = replies.iter().filter(|reply| reply.status == 204).count();
    assert!(done >= 1 && replies.iter().all(|reply| matches!(reply.status, 204 | 409)), "{replies:?}");
    assert_eq!(api.get(&format!("/v1/vms/{vm}")).await.ok().json()["state"], "STOPPED");
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn ten_vms_at_once(world: &World) {
    let api = world.api().await;
    let vms =
        futures_util::future::join_all((0..10).map(|_| crate::harness::create(&api, json!({"memMb": 128})))).await;
    let said = futures_util::future::join_all(vms.iter().map(|vm| api.sh(vm, "hostname"))).await;
    assert_eq!(said.len(), 10);
    let mut different = vms.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 10);
    for vm in vms {
        api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
}

async fn any_size_of_disk_makes_one(world: &World) {
    let server = world.own_server(&[("OVERLAY_SIZE_BYTES", "100000001")]).await;
    let api = server.api();
    let vm = crate::harness::create(&api, json!({"memMb": 128})).await;
    api.sh(&vm, "echo kept > f && sync f").await;
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    server.assert_no_trace().await;
}

async fn a_kernel_leaves_alone_what_its_processor_gets_wrong(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    api.sh(&vm, "! grep clearcpuid=141 /proc/cmdline || ! grep --word-regexp cx16 /proc/cpuinfo").await;
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

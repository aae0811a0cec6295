//! VMs outlive the manager.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, World, cases, processes};

cases![
    a_manager_killed_under_load_finds_every_vm_again,
    a_vm_that_died_meanwhile_is_not_running,
    a_stopped_vm_stays_stopped,
    what_belongs_to_no_vm_is_removed,
    a_key_gives_the_first_answer_after_a_restart_too,
    a_key_whose_create_was_cut_off_can_be_used_again,
    a_storage_root_and_a_database_have_one_manager,
    a_storage_root_and_a_database_that_are_not_a_pair_are_left_alone,
    a_server_with_other_settings_removes_jails needs "Firecracker",
];

async fn a_manager_killed_under_load_finds_every_vm_again(world: &World) {
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let mut vms = Vec::new();
    // The first two come from a seed, the third has no size that there is one for, and is booted.
    for (name, memory, from) in [("a", 128, "seed"), ("b", 256, "seed"), ("c", 192, "boot")] {
        vms.push(crate::harness::create(&api, json!({"memMb": memory, "name": name})).await);
        assert_eq!(api.started_from(&vms[vms.len() - 1]).await, from);
        api.sh(&vms[vms.len() - 1], &format!("echo {name} > name")).await;
    }
    let boots: Vec<String> =
        futures_util::future::join_all(vms.iter().map(|vm| api.sh(vm, "cat /proc/sys/kernel/random/boot_id"))).await;
    let load: Vec<_> = (0..24)
        .map(|n| {
            let (api, vm) = (api.clone(), vms[n % vms.len()].clone());
            let body = match n % 3 {
                0 => json!({"cmd": "head -c 900000 /dev/urandom | base64"}),
                1 => json!({"cmd": "sleep 30", "timeoutMs": 60_000}),
                _ => json!({"cmd": "for i in $(seq 200); do echo $i; done"}),
            };
            tokio::spawn(async move {
                let path = format!("/v1/vms/{vm}/exec");
                let _ = api.request(Method::POST, &path).json(&body).send().await;
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(700)).await;
    server.kill();
    for task in load {
        let _ = task.await;
    }
    assert_eq!(server.vm_processes().len(), 3, "VMs died with the manager");
    server.restart(&[]).await;
    let api = server.api();
    let list = api.get("/v1/vms").await.ok().json();
    let states: Vec<&Value> = list.as_array().expect("a list").iter().map(|vm| &vm["state"]).collect();
    assert_eq!(states, [&json!("RUNNING"), &json!("RUNNING"), &json!("RUNNING")]);
    for ((vm, name), boot) in vms.iter().zip(["a", "b", "c"]).zip(&boots) {
        assert_eq!(api.sh(vm, "cat name").await, name);
        assert_eq!(&api.sh(vm, "cat /proc/sys/kernel/random/boot_id").await, boot, "it was booted again");
    }
    // A second time, and the VMs obey the new manager.
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    api.poke(&format!("/v1/vms/{}/stop", vms[0])).await.status(204);
    api.poke(&format!("/v1/vms/{}/start", vms[0])).await.status(204);
    assert_eq!(api.sh(&vms[0], "cat name").await, "a");
    for vm in &vms {
        api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    }
    server.assert_no_trace().await;
}

async fn a_server_with_other_settings_removes_jails(world: &World) {
    let jails = tempfile::tempdir().expect("a directory");
    let base = jails.path().to_str().expect("text");
    let mut server = world.own_server(&[("JAILER_CHROOT_BASE_DIR", base), ("ENABLE_SNAPSHOTS", "false")]).await;
    let vm = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    let count = || std::fs::read_dir(jails.path().join("firecracker")).expect("jails are made there").count();
    assert_eq!(count(), 1);
    server.kill();
    server.restart(&[("JAILER_CHROOT_BASE_DIR", None)]).await;
    assert_eq!(server.api().sh(&vm, "echo found").await.trim(), "found");
    server.api().delete(&format!("/v1/vms/{vm}")).await.status(204);
    assert_eq!(count(), 0);
    server.assert_no_trace().await;
}

async fn a_vm_that_died_meanwhile_is_not_running(world: &World) {
    let mut server = world.own_server(&[]).await;
    let vm = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    server.api().sh(&vm, "echo kept > f; sync").await;
    server.kill();
    for pid in server.vm_processes() {
        processes::kill(pid);
    }
    server.restart(&[]).await;
    let api = server.api();
    let state = api.get(&format!("/v1/vms/{vm}")).await.ok().json()["state"].clone();
    assert!(state == "STOPPED" || state == "ERROR", "{state}");
    api.post(&format!("/v1/vms/{vm}/exec"), &json!({"cmd": "true"})).await.status(409);
    if state == "STOPPED" {
        api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
        assert_eq!(api.sh(&vm, "cat f").await, "kept");
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    server.assert_no_trace().await;
}

async fn a_stopped_vm_stays_stopped(world: &World) {
    let mut server = world.own_server(&[]).await;
    let vm = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    server.api().sh(&vm, "echo kept > f").await;
    server.api().poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    assert_eq!(api.get(&format!("/v1/vms/{vm}")).await.ok().json()["state"], "STOPPED");
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    assert_eq!(api.sh(&vm, "cat f").await, "kept");
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn what_belongs_to_no_vm_is_removed(world: &World) {
    let mut server = world.own_server(&[]).await;
    server.stop().await;
    let stray = server.root().join("vms/0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e");
    std::fs::create_dir_all(&stray).expect("a directory");
    std::fs::write(stray.join("disk.ext4"), "x").expect("a file");
    std::fs::write(server.root().join("tmp/half"), "x").expect("a file");
    let drafts = ["templates/.new-a1b2c3", "initramfs/.new-d4e5f6"].map(|name| server.root().join(name));
    for draft in &drafts {
        std::fs::create_dir_all(draft.parent().expect("a parent")).expect("a directory");
        std::fs::write(draft, "x").expect("a file");
    }
    server.restart(&[]).await;
    assert!(!drafts.iter().any(|draft| draft.exists()), "unfinished files are left");
    server.assert_no_trace().await;
}

fn create_once(api: &Api, key: &str, body: &Value) -> reqwest::RequestBuilder {
    api.request(Method::POST, "/v1/vms").header("idempotency-key", key).json(body)
}

async fn a_key_gives_the_first_answer_after_a_restart_too(world: &World) {
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": []});
    let first = api.send(create_once(&api, "order", &body)).await.status(201).json();
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    assert_eq!(api.send(create_once(&api, "order", &body)).await.status(201).json(), first);
    let other = json!({"cpu": 1, "memMb": 256, "allowIps": []});
    let refused = api.send(create_once(&api, "order", &other)).await;
    assert!((400..500).contains(&refused.status), "{refused:?}");
    assert_eq!(api.get("/v1/vms").await.ok().json().as_array().map(Vec::len), Some(1));
    api.delete(&format!("/v1/vms/{}", first["id"].as_str().expect("an id"))).await.status(204);
}

async fn a_key_whose_create_was_cut_off_can_be_used_again(world: &World) {
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": []});
    let cut_off = tokio::spawn(create_once(&api, "order", &body).send());
    while server.vm_processes().is_empty() {
        assert!(!cut_off.is_finished(), "no process was seen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    assert!(cut_off.await.expect("it ends").is_err(), "it was answered");
    server.restart(&[]).await;
    server.assert_no_trace().await;
    let api = server.api();
    let vm = api.send(create_once(&api, "order", &body)).await.status(201).json();
    assert_eq!(api.send(create_once(&api, "order", &body)).await.status(201).json(), vm);
    api.delete(&format!("/v1/vms/{}", vm["id"].as_str().expect("an id"))).await.status(204);
    server.assert_no_trace().await;
}

/// What a server says that does not start.
async fn refusal(world: &World, root: &Path, sqlite: &Path) -> String {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_rds"))
        .args(["serve", "--port", "0", "--network", "off", "--storage-root"])
        .arg(root)
        .arg("--sqlite-path")
        .arg(sqlite)
        .env("RDS_AGENT_PATH", &world.found.agent)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("it ends").expect("it runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn a_storage_root_and_a_database_have_one_manager(world: &World) {
    let server = world.own_server(&[]).await;
    let (other, database) = (tempfile::tempdir().expect("a directory"), server.root().join("manager.db"));
    // Neither has anything of a VM yet, so the two would be taken for a pair.
    for root in [server.root(), other.path()] {
        let said = refusal(world, root, &database).await;
        assert!(said.to_lowercase().contains("another server"), "{said}");
    }
    server.api().get("/v1/vms").await.ok();
}

async fn a_storage_root_and_a_database_that_are_not_a_pair_are_left_alone(world: &World) {
    let mut server = world.own_server(&[]).await;
    let vm = crate::harness::create(&server.api(), json!({"memMb": 128})).await;
    server.kill();
    let other = tempfile::tempdir().expect("a directory");
    let (database, new_database) = (server.root().join("manager.db"), other.path().join("manager.db"));
    for (root, database) in [(server.root(), &new_database), (other.path(), &database)] {
        let said = refusal(world, root, database).await;
        let error = said.trim_end().lines().last().expect("an error");
        assert!(error.starts_with("rds: ") && error.contains("installation"), "{said}");
    }
    assert_eq!(server.vm_processes().len(), 1, "the VM was ended");
    server.restart(&[]).await;
    let api = server.api();
    api.sh(&vm, "true").await;
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    server.assert_no_trace().await;
}

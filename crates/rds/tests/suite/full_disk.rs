//! A host whose disk is full: what does not fit is refused and leaves nothing, and goes on when there is room again.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::prerequisites::monitor;
use crate::harness::{Api, Reply, TestServer, World, cases, create};
use crate::seeds::{directories, image, seeded};

cases![
    a_full_disk_refuses_what_does_not_fit_and_holds_no_vm_up_for_good needs "mounts",
    a_disk_that_fills_up_while_a_seed_is_made_leaves_nothing needs "mounts",
];

const MIB: u64 = 1 << 20;

/// Room for a seed of 256 MiB, and for what is kept free beside it.
const PLENTY: u64 = 1600 * MIB;

fn assert_full(reply: &Reply) {
    assert_eq!(reply.status, 503, "{reply:?}");
    let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(body, json!({"message": "There is no room left on the host's disk", "code": "disk_full"}));
}

fn entries(server: &TestServer, directory: &str) -> usize {
    std::fs::read_dir(server.root().join(directory)).map_or(0, Iterator::count)
}

/// Blocks of the copy that a machine has for its own use.
fn copy_blocks(server: &TestServer, vm: &str) -> u64 {
    let copy = server.root().join("vms").join(vm).join("disk.copy");
    std::fs::metadata(copy).map_or(0, |facts| facts.blocks())
}

async fn try_create(api: &Api) -> Reply {
    api.post("/v1/vms", &json!({"cpu": 1, "memMb": 128, "allowIps": []})).await
}

async fn a_full_disk_refuses_what_does_not_fit_and_holds_no_vm_up_for_good(world: &World) {
    let server = TestServer::on_small_disk(&world.found, &[], 200 * MIB).await;
    let api = server.api();
    let id = image(&api).await["id"].as_str().expect("an id").to_owned();
    let without = seeded(&api, &id).await;
    assert_eq!(without["seedStatus"], "error");
    assert!(without["seedError"].as_str().expect("words").contains("room"), "{without}");
    let vm = create(&api, json!({"memMb": 128})).await;
    let other = create(&api, json!({"memMb": 128})).await;
    // Little: this disk is memory, and a jailed monitor is charged with what it writes to it.
    api.sh(&vm, "head -c 6M /dev/urandom > big; sync").await;

    let taken = api.poke(&format!("/v1/vms/{vm}/snapshots")).await.status(201).json();
    api.delete(&format!("/v1/snapshots/{}", taken["id"].as_str().expect("an id"))).await.status(204);
    server.leave_room(3 * MIB);
    assert_full(&api.poke(&format!("/v1/vms/{vm}/snapshots")).await);
    assert_eq!(copy_blocks(&server, &vm), 0, "a copy that was not finished keeps the disk full");

    server.leave_room(0);
    assert_full(&try_create(&api).await);
    assert_eq!(server.vm_directories().len(), 2, "something is left of a create");
    assert_full(&api.poke(&format!("/v1/vms/{vm}/snapshots")).await);
    assert_full(&api.post(&format!("/v1/vms/{vm}/snapshots"), &json!({"kind": "vm"})).await);
    assert_full(&api.post(&format!("/v1/vms/{vm}/fork"), &json!({"count": 2})).await);
    assert_eq!(entries(&server, "snapshots"), 0, "something is left of a snapshot");
    assert_eq!(server.vm_directories().len(), 2, "something is left of a fork");
    assert_eq!(api.sh(&vm, "echo alive").await, "alive");
    write_to_a_full_disk(&server, &api, &vm, &other).await;
    for body in [json!({}), json!({"kind": "vm"})] {
        let taken = api.post(&format!("/v1/vms/{vm}/snapshots"), &body).await.status(201).json();
        let taken = api.request(Method::DELETE, &format!("/v1/snapshots/{}", taken["id"].as_str().expect("an id")));
        api.send(taken).await.status(204);
    }
    let begun = Instant::now();
    while seeded(&api, &id).await["seedStatus"] != "ready" {
        assert!(begun.elapsed() < Duration::from_secs(120), "the seed is not made though there is room");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seeded = create(&api, json!({})).await;
    assert_eq!(api.started_from(&seeded).await, "seed");
    api.remove(&[&vm]).await;
    api.remove(&[&seeded]).await;
    server.assert_no_trace().await;
}

/// What a guest writes does not get lost in silence. `other` is deleted, which is how one gets room.
async fn write_to_a_full_disk(server: &TestServer, api: &Api, vm: &str, other: &str) {
    let big = api.sh(vm, "sha256sum big").await;
    let (writing, to) = (api.clone(), vm.to_owned());
    let write = json!({"cmd": "head -c 10M /dev/zero > more && sync more"});
    let writing = tokio::spawn(async move { writing.exec_with(&to, write).await["exitCode"].clone() });
    let make_room = async {
        api.remove(&[other]).await;
        assert_eq!(server.vm_directories().len(), 1);
        server.leave_room(PLENTY);
    };
    if monitor() == "qemu" {
        // It waits.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!writing.is_finished(), "it was written to a full disk");
        make_room.await;
        assert_eq!(writing.await.expect("it ends"), 0);
    } else {
        // Firecracker cannot have it wait: its program is told, and its filesystem is as after a power cut.
        assert_ne!(writing.await.expect("it ends"), 0);
        make_room.await;
        api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
        api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
        api.sh(vm, "head -c 10M /dev/zero > more && sync more").await;
    }
    assert_eq!(api.sh(vm, "head -c 10M /dev/zero | cmp - more && sha256sum big").await, big);
}

async fn a_disk_that_fills_up_while_a_seed_is_made_leaves_nothing(world: &World) {
    let server = TestServer::on_small_disk(&world.found, &[], PLENTY).await;
    let api = server.api();
    let id = image(&api).await["id"].as_str().expect("an id").to_owned();
    let begun = Instant::now();
    while entries(&server, "seeds/build") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no seed is begun");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Enough for the machine, not for its memory.
    server.leave_room(30 * MIB);
    let failed = seeded(&api, &id).await;
    assert_eq!(failed["seedStatus"], "error");
    assert!(failed["seedError"].as_str().expect("words").contains("room"), "{failed}");
    assert!(directories(&server).is_empty(), "{:?}", directories(&server));
    assert_eq!(crate::harness::processes::holding(&server.root().join("seeds"), Some(server.pid())), Vec::<u32>::new());
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "boot");
    server.leave_room(PLENTY);
    let begun = Instant::now();
    while seeded(&api, &id).await["seedStatus"] != "ready" {
        assert!(begun.elapsed() < Duration::from_secs(120), "the seed is not made though there is room");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    api.remove(&[&vm]).await;
    server.assert_no_trace().await;
}

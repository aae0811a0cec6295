//! Copies of running VMs: memory snapshots and forks.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, TestServer, World, cases, create};
use crate::pause::{assert_clock, state};

cases![
    a_program_goes_on_in_a_vm_from_a_memory_snapshot,
    a_memory_snapshot_fits_its_size_and_its_image,
    a_vm_whose_image_was_replaced_is_not_copied,
    what_has_secrets_or_links_is_not_copied,
    secrets_that_were_taken_away_stay_in_memory_until_a_stop,
    forks_go_on_and_have_nothing_else_in_common,
    every_copy_has_the_memory_of_its_moment,
    forks_are_all_made_or_none,
    a_copy_that_is_broken_off_leaves_nothing,
    programs_that_draw_random_numbers_while_they_are_copied_never_agree_as_with_a_late_vmgenid,
];

/// Counts in `/dev/shm/n`, in memory alone, twenty times a second for as long as it lives.
const COUNTER: &str = "sh -c 'n=0; while :; do n=$((n+1)); echo $n > /dev/shm/new; mv /dev/shm/new /dev/shm/n; sleep 0.05; done' >/dev/null 2>&1 &";

/// What no two VMs have in common.
const SELF: &str =
    "hostname; cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1";

async fn count(api: &Api, vm: &str) -> u32 {
    api.sh(vm, "cat /dev/shm/n").await.parse().expect("a number")
}

async fn counting(api: &Api, vm: &str) -> u32 {
    let first = count(api, vm).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(count(api, vm).await > first, "the program does not go on");
    first
}

/// A VM with a program that counts, and a file that is not yet on its disk.
async fn counter(api: &Api, wish: Value) -> String {
    let vm = create(api, wish).await;
    api.sh(&vm, COUNTER).await;
    api.sh(&vm, "echo unsynced > f; echo memory > /dev/shm/m; until [ -e /dev/shm/n ]; do sleep 0.1; done").await;
    vm
}

async fn view(api: &Api, vm: &str) -> Value {
    api.get(&format!("/v1/vms/{vm}")).await.ok().json()
}

async fn memory_snapshot(api: &Api, vm: &str) -> Value {
    api.post(&format!("/v1/vms/{vm}/snapshots"), &json!({"kind": "vm"})).await.status(201).json()
}

async fn fork(api: &Api, vm: &str, wish: &Value) -> Vec<String> {
    let forks = api.post(&format!("/v1/vms/{vm}/fork"), wish).await.status(201).json();
    let forks = forks["vms"].as_array().expect("a list");
    forks.iter().map(|fork| fork["id"].as_str().expect("an id").to_owned()).collect()
}

async fn a_program_goes_on_in_a_vm_from_a_memory_snapshot(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = counter(&api, json!({"memMb": 128})).await;
    let before = counting(&api, &vm).await;
    // It is drawn when it is first read.
    let boot = api.sh(&vm, "cat /proc/sys/kernel/random/boot_id").await;
    let snapshot = memory_snapshot(&api, &vm).await;
    eprintln!(
        "measured: a memory snapshot of 128 MiB: paused {} ms, {} bytes",
        snapshot["pausedMs"], snapshot["sizeBytes"]
    );
    let expected = json!(["vm", 1, 128, vm, true, true]);
    let of = |field: &str| snapshot[field].clone();
    let shown = json!([of("kind"), of("cpu"), of("memMb"), of("sourceVmId"), of("hasDisk"), of("hasOverlay")]);
    assert_eq!(shown, expected);
    assert!(snapshot["sizeBytes"].as_u64() > Some(1 << 20) && snapshot["pausedMs"].as_f64() > Some(0.0), "{snapshot}");
    // The source goes on, with the right time.
    assert_clock(&api, &vm).await;
    let after = counting(&api, &vm).await;
    let source = api.sh(&vm, SELF).await;
    api.remove(&[vm]).await;

    let list = api.get("/v1/snapshots").await.ok().json();
    assert_eq!(list.as_array().expect("a list").iter().filter(|listed| listed["kind"] == "vm").count(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let id = snapshot["id"].as_str().expect("an id");
    let wish = json!({"memMb": 128, "snapshotId": id, "secretEnv": ["TOKEN=granted"]});
    let (one, two) = tokio::join!(create(&api, wish.clone()), create(&api, wish.clone()));
    let mut said: HashSet<String> = source.lines().map(str::to_owned).collect();
    for copy in [&one, &two] {
        assert_clock(&api, copy).await;
        let shown = view(&api, copy).await;
        assert_eq!((&shown["provisionMode"], &shown["startedFrom"]), (&json!("snapshot"), &json!("snapshot")));
        let at = counting(&api, copy).await;
        assert!(at >= before, "the program began anew: {at}, {before}");
        assert_eq!(api.sh(copy, "cat f /dev/shm/m").await, "unsynced\nmemory");
        assert_eq!(api.sh(copy, "cat /proc/sys/kernel/random/boot_id").await, boot, "it was booted");
        assert_eq!(api.sh(copy, "echo $TOKEN").await, "granted");
        let own: Vec<String> = api.sh(copy, SELF).await.lines().map(str::to_owned).collect();
        assert!(
            own[0].strip_prefix("vm-").is_some_and(|start| start.len() == 8 && copy.starts_with(start)),
            "{}",
            own[0]
        );
        assert_eq!(own[0], own[1]);
        for word in &own[1..] {
            assert!(said.insert(word.clone()), "two VMs agree on {word}");
        }
    }
    eprintln!("measured: a copy's timings {}; the source counted {before}..{after}", view(&api, &one).await["timings"]);
    // A copy is a VM like any other: it can be copied, and booted.
    let again = api.post(&format!("/v1/vms/{one}/snapshots"), &json!({"kind": "vm"})).await.status(409).message();
    assert!(again.contains("secrets"), "{again}");
    let plain = create(&api, json!({"memMb": 128, "snapshotId": id})).await;
    let second = memory_snapshot(&api, &plain).await;
    let third = create(&api, json!({"memMb": 128, "snapshotId": second["id"]})).await;
    counting(&api, &third).await;
    assert_eq!(api.sh(&third, "cat f; echo [$TOKEN]").await, "unsynced\n[]");
    api.poke(&format!("/v1/vms/{one}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{one}/start")).await.status(204);
    assert_eq!(api.sh(&one, "cat f; ls /dev/shm").await, "unsynced");
    assert_ne!(view(&api, &one).await["startedFrom"], "snapshot");
    assert_ne!(api.sh(&one, "cat /proc/sys/kernel/random/boot_id").await, boot);
    api.delete(&format!("/v1/snapshots/{id}")).await.status(204);
    counting(&api, &two).await;
    api.remove(&[one, two, plain, third]).await;
    server.assert_no_trace().await;
}

/// An image of the server's own, whose files can be replaced.
async fn uploaded_image(world: &World, api: &Api) -> String {
    let image = api.post("/v1/images", &json!({"name": "a"})).await.status(201).json();
    let id = image["id"].as_str().expect("an id");
    for (kind, file) in world.found.image_files() {
        crate::images::put_file(api, id, kind, file).await.status(204);
    }
    id.to_owned()
}

async fn a_vm_whose_image_was_replaced_is_not_copied(world: &World) {
    let server = TestServer::without_image(&world.found, &[("ENABLE_SNAPSHOTS", "false")]).await;
    let api = server.api();
    let image = uploaded_image(world, &api).await;
    let vm = create(&api, json!({"memMb": 128, "imageId": image})).await;
    let copies = [("fork", json!({"count": 1})), ("snapshots", json!({"kind": "vm"}))];
    crate::images::put_file(&api, &image, "rootfs", &world.found.rootfs).await.status(204);
    for (call, body) in &copies {
        let message = api.post(&format!("/v1/vms/{vm}/{call}"), body).await.status(409).message();
        assert!(message.contains("image's files"), "{message}");
    }
    // It goes on with those that it has open.
    assert_eq!(api.sh(&vm, "sha256sum /bin/sh > /dev/null && echo alive").await, "alive");
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    for (call, body) in &copies {
        api.post(&format!("/v1/vms/{vm}/{call}"), body).await.status(201);
    }
}

async fn a_memory_snapshot_fits_its_size_and_its_image(world: &World) {
    let server = TestServer::without_image(&world.found, &[]).await;
    let api = server.api();
    let other = api.post("/v1/images", &json!({"name": "b"})).await.status(201).json();
    let images = [uploaded_image(world, &api).await, other["id"].as_str().expect("an id").to_owned()];
    let vm = create(&api, json!({"memMb": 128, "imageId": images[0]})).await;
    let snapshot = memory_snapshot(&api, &vm).await;
    let refused = async |change: Value, status: u16| {
        let mut wish = json!({"cpu": 1, "memMb": 128, "allowIps": [], "snapshotId": snapshot["id"]});
        wish.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        api.post("/v1/vms", &wish).await.status(status).message()
    };
    assert!(refused(json!({"memMb": 256}), 400).await.contains("memMb 128"));
    assert!(refused(json!({"cpu": 2}), 400).await.contains("cpu must be 1"));
    assert!(refused(json!({"diskSizeMb": 1024}), 400).await.contains("diskSizeMb must be"));
    assert!(refused(json!({"imageId": images[1]}), 400).await.contains("image"));
    api.post(&format!("/v1/vms/{vm}/snapshots"), &json!({"kind": "image_seed"})).await.status(400);
    api.remove(&[vm]).await;
    // Another kernel of the same content is another image.
    crate::images::put_file(&api, &images[0], "kernel", &world.found.kernel).await.status(204);
    assert!(refused(json!({}), 409).await.contains("cannot be used any more"));
    server.assert_no_trace().await;
}

async fn what_has_secrets_or_links_is_not_copied(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let export = crate::peers::sdk::export("one", &[], json!({}));
    let sdk = crate::peers::sdk::javascript("export const one = () => 1;", &[export]);
    let provider = sdk.provide(&api, json!({"memMb": 256, "secretEnv": ["KEY=k"]})).await;
    let vm = create(&api, json!({"memMb": 256, "peerLinks": [{"alias": "p", "vmId": provider}]})).await;
    let call = "import { one } from 'file:///workspace/peers/p/proxy/sdk/small.mjs'; result.set(await one())";
    assert_eq!(crate::peers::stage::node(&api, &vm, call).await, 1);
    for (id, word) in [(&provider, "secrets"), (&vm, "peers")] {
        for (call, body) in [("snapshots", json!({"kind": "vm"})), ("fork", json!({"count": 1}))] {
            let message = api.post(&format!("/v1/vms/{id}/{call}"), &body).await.status(409).message();
            assert!(message.contains(word), "{message}");
        }
    }
    api.delete(&format!("/v1/vms/{vm}/peers/q")).await.status(404);
    api.delete(&format!("/v1/vms/{vm}/peers/p")).await.status(204);
    assert_eq!(view(&api, &vm).await["peerLinks"], json!([]));
    assert_eq!(api.sh(&vm, "ls peers").await, "index.json");
    // None is inherited; what the request grants is there, and works.
    let plain = fork(&api, &vm, &json!({"count": 1})).await;
    assert_eq!(api.sh(&plain[0], "ls peers; echo [$KEY]").await, "index.json\n[]");
    let wish = json!({"count": 1, "secretEnv": ["KEY=mine"], "peerLinks": [{"alias": "p", "vmId": provider}]});
    let granted = fork(&api, &vm, &wish).await;
    assert_eq!(api.sh(&granted[0], "echo $KEY").await, "mine");
    assert_eq!(crate::peers::stage::node(&api, &granted[0], call).await, 1);
    api.post(&format!("/v1/vms/{}/fork", granted[0]), &json!({})).await.status(409);
    let wrong = json!({"peerLinks": [{"alias": "p", "vmId": "9d0b7a4e-0000-4000-8000-000000000000"}]});
    api.post(&format!("/v1/vms/{vm}/fork"), &wrong).await.status(400);
    api.remove(&[plain, granted, vec![vm, provider]].concat()).await;
    server.assert_no_trace().await;
}

async fn secrets_that_were_taken_away_stay_in_memory_until_a_stop(world: &World) {
    let mut server = world.own_server(&[("ENABLE_SNAPSHOTS", "false")]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128, "secretEnv": ["TOKEN=a-token-of-some-length"]})).await;
    api.sh(&vm, "(sleep 1000 &) > /dev/null 2>&1; test \"$TOKEN\"").await;
    let set = async |api: &Api, secrets: &[&str]| {
        let request = api.request(Method::PUT, &format!("/v1/vms/{vm}/secrets"));
        api.send(request.json(&json!({"secretEnv": secrets}))).await.status(204);
    };
    let refused = async |api: &Api| {
        for (call, body) in [("snapshots", json!({"kind": "vm"})), ("fork", json!({"count": 1}))] {
            let message = api.post(&format!("/v1/vms/{vm}/{call}"), &body).await.status(409).message();
            assert!(message.contains("has had secrets"), "{message}");
        }
    };
    set(&api, &[]).await;
    refused(&api).await;
    // The next server does not forget it.
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    refused(&api).await;
    let again = async |api: &Api| {
        api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
        api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    };
    again(&api).await;
    memory_snapshot(&api, &vm).await;
    // Also those that came after the start.
    set(&api, &["TOKEN=another-token"]).await;
    set(&api, &[]).await;
    refused(&api).await;
    again(&api).await;
    fork(&api, &vm, &json!({"count": 1})).await;
}

/// How many copies of memory files the server has in its memory, for monitors that would write to the files.
fn templates(server: &TestServer) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("a process").flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().contains("rds-template")).count()
}

async fn forks_go_on_and_have_nothing_else_in_common(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = counter(&api, json!({"memMb": 128, "labels": {"a": "b"}, "name": "source"})).await;
    let before = counting(&api, &vm).await;
    let of_seeds = templates(&server);
    let begun = Instant::now();
    let forks = fork(&api, &vm, &json!({"count": 4})).await;
    eprintln!("measured: 4 forks of 128 MiB in {:?}: {}", begun.elapsed(), view(&api, &forks[0]).await["timings"]);
    assert_eq!(forks.len(), 4);
    assert_clock(&api, &vm).await;
    counting(&api, &vm).await;
    let mut said: HashSet<String> = api.sh(&vm, SELF).await.lines().map(str::to_owned).collect();
    for fork in &forks {
        let shown = view(&api, fork).await;
        assert_eq!((&shown["labels"]["a"], &shown["name"]), (&json!("b"), &Value::Null));
        assert_eq!((&shown["memMb"], &shown["state"]), (&json!(128), &json!("RUNNING")));
        assert_clock(&api, fork).await;
        assert!(counting(&api, fork).await >= before);
        assert_eq!(api.sh(fork, "cat f /dev/shm/m").await, "unsynced\nmemory");
        for word in api.sh(fork, SELF).await.lines().skip(1) {
            assert!(said.insert(word.to_owned()), "two VMs agree on {word}");
        }
        // What one writes is its own.
        api.sh(fork, &format!("echo {fork} > f; echo {fork} > /dev/shm/m; sync")).await;
    }
    assert_eq!(api.sh(&vm, "cat f /dev/shm/m").await, "unsynced\nmemory");
    for fork in &forks {
        assert_eq!(api.sh(fork, "cat f /dev/shm/m").await, format!("{fork}\n{fork}"));
    }
    // A fork of a fork of a paused VM.
    api.poke(&format!("/v1/vms/{}/pause", forks[0])).await.status(204);
    let second = fork(&api, &forks[0], &json!({})).await;
    assert_eq!(state(&api, &forks[0]).await, "RUNNING");
    counting(&api, &second[0]).await;
    api.remove(&[second, forks, vec![vm]].concat()).await;
    server.assert_no_trace().await;
    let begun = Instant::now();
    while templates(&server) > of_seeds {
        assert!(begun.elapsed() < Duration::from_secs(5), "the server keeps memory of forks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left: Vec<_> = std::fs::read_dir(server.root().join("snapshots")).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Copies of a copy, one after the other: what did not change between two of them is in both.
async fn every_copy_has_the_memory_of_its_moment(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    let content = async |vm: &str| api.sh(vm, "cd /dev/shm && sha256sum *").await;
    let mut moments = Vec::new();
    let mut source = vm.clone();
    for change in [
        "head -c 12000000 /dev/urandom > a; head -c 4000000 /dev/urandom > b",
        "head -c 3000000 /dev/zero | dd of=a bs=4096 seek=500 conv=notrunc status=none",
        "rm b; head -c 6000000 /dev/urandom > c; printf x | dd of=a bs=4096 seek=2500 conv=notrunc status=none",
        "head -c 2000000 a > d",
    ] {
        api.sh(&source, &format!("cd /dev/shm && {change}")).await;
        let now = content(&source).await;
        let copy = fork(&api, &source, &json!({})).await.remove(0);
        assert_eq!(content(&source).await, now);
        moments.push((copy, now));
        source = moments[0].0.clone();
    }
    let changed = content(&source).await;
    for (copy, then) in &moments[1..] {
        assert_eq!(content(copy).await, *then);
    }
    assert_eq!(content(&vm).await, moments[0].1);
    assert_eq!(changed, moments[3].1);
    api.remove(&[vec![vm], moments.into_iter().map(|(copy, _)| copy).collect()].concat()).await;
    server.assert_no_trace().await;
}

/// Draws numbers of 16 bytes from the kernel one after the other, and keeps them in memory.
const DRAWER: &str =
    "dd if=/dev/urandom of=/dev/shm/draws bs=16 count=4000000 >/dev/null 2>&1 & echo $! > /dev/shm/drawer";

/// Bytes of numbers that are compared at once, by their digest.
const CHUNK: u64 = 128 << 10;

/// The test that Firecracker's VMGenID needs, whose interrupt the programs of a copy may overtake, and QEMU's `microvm`, which has
/// none: what two copies drew alike they drew before they were copied, so all of it is in the memory that was saved.
async fn programs_that_draw_random_numbers_while_they_are_copied_never_agree_as_with_a_late_vmgenid(world: &World) {
    let server = world.own_server(&[("ENABLE_SNAPSHOTS", "false")]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 256})).await;
    api.sh(&vm, &format!("{DRAWER}; until [ -s /dev/shm/draws ]; do sleep 0.05; done")).await;
    let snapshot = memory_snapshot(&api, &vm).await;
    let id = snapshot["id"].as_str().expect("an id");
    let wish = json!({"memMb": 256, "snapshotId": id});
    let (one, two) = tokio::join!(create(&api, wish.clone()), create(&api, wish.clone()));
    let size = "stat -c %s /dev/shm/draws";
    for vm in [&vm, &one, &two] {
        // They go on, far enough for the first number that is not in both copies.
        let enough = api.sh(vm, size).await.parse::<u64>().expect("a number") + CHUNK;
        let grow = format!("until [ $({size}) -gt {enough} ]; do sleep 0.05; done; kill -STOP $(cat /dev/shm/drawer)");
        api.sh(vm, &grow).await;
    }
    let digests = async |vm: &str| api.sh(vm, &format!("split -b {CHUNK} --filter=sha256sum /dev/shm/draws")).await;
    let (of_one, of_two) = tokio::join!(digests(&one), digests(&two));
    let chunk = of_one.lines().zip(of_two.lines()).position(|(one, two)| one != two).expect("the copies agree in all");
    let cut = format!("dd if=/dev/shm/draws bs={CHUNK} skip={chunk} count=1 status=none | od -An -v -tx1 -w16");
    let (of_one, of_two) = tokio::join!(api.sh(&one, &cut), api.sh(&two, &cut));
    let (of_one, of_two): (Vec<_>, Vec<_>) = (of_one.lines().collect(), of_two.lines().collect());
    let alike = of_one.iter().zip(&of_two).take_while(|(one, two)| one == two).count();
    assert!(chunk > 0 || alike > 0, "nothing was drawn before the copy");
    let later: HashSet<_> = of_one[alike..].iter().collect();
    assert!(of_two[alike..].iter().all(|number| !later.contains(number)), "the copies agree again");
    let bytes = |line: &&str| {
        let bytes = line.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal digits"));
        <[u8; 16]>::try_from(bytes.collect::<Vec<_>>()).expect("a number")
    };
    let agreed: HashSet<[u8; 16]> = of_one[..alike].iter().map(bytes).collect();
    let memory = std::fs::read(server.root().join("snapshots").join(id).join("machine/memory")).expect("its memory");
    let saved: HashSet<&[u8; 16]> = memory.as_chunks().0.iter().filter(|piece| agreed.contains(*piece)).collect();
    assert_eq!(saved.len(), agreed.len(), "the copies drew the same numbers after they were made");
    api.remove(&[vm, one, two]).await;
    server.assert_no_trace().await;
}

async fn forks_are_all_made_or_none(world: &World) {
    let server = world.own_server(&[("MAX_VMS", "4")]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}/fork");
    for count in [json!(0), json!(101), json!(1.5), json!("2")] {
        api.post(&path, &json!({"count": count})).await.status(400);
    }
    api.post(&path, &json!({"count": 4})).await.status(429);
    assert_eq!(api.get("/v1/vms").await.ok().json().as_array().expect("a list").len(), 1);
    let keyed = async |body: &Value| {
        api.send(api.request(Method::POST, &path).header("idempotency-key", "fork-1").json(body)).await
    };
    let first = keyed(&json!({"count": 2})).await.status(201).json();
    assert_eq!(keyed(&json!({"count": 2})).await.status(201).json(), first);
    keyed(&json!({"count": 1})).await.status(409);
    assert_eq!(api.get("/v1/vms").await.ok().json().as_array().expect("a list").len(), 3);
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&path).await.status(409);
    api.post(&format!("/v1/vms/{vm}/snapshots"), &json!({"kind": "vm"})).await.status(409);
}

/// Ids of the snapshots, and of the VMs but one.
async fn made(api: &Api, source: &str) -> HashSet<String> {
    let (snapshots, vms) = (api.get("/v1/snapshots").await.ok().json(), api.get("/v1/vms").await.ok().json());
    let lists = [snapshots, vms];
    let ids =
        lists.iter().flat_map(|list| list.as_array().expect("a list")).map(|one| one["id"].as_str().expect("an id"));
    ids.filter(|id| *id != source).map(str::to_owned).collect()
}

async fn a_copy_that_is_broken_off_leaves_nothing(world: &World) {
    let mut server = world.own_server(&[]).await;
    let vm = counter(&server.api(), json!({"memMb": 128})).await;
    let calls = [
        ("snapshots", json!({"kind": "vm"}), 1, &[10, 60, 200, 600][..]),
        ("fork", json!({"count": 3}), 3, &[10, 200, 600, 1500, 2500, 3500][..]),
    ];
    for (call, body, count, pauses) in calls {
        for pause_ms in pauses {
            let request = |api: &Api| {
                let request = api.request(Method::POST, &format!("/v1/vms/{vm}/{call}"));
                request.header("idempotency-key", format!("{call}-{pause_ms}")).json(&body)
            };
            let first = request(&server.api());
            let first = tokio::spawn(async move { first.send().await.is_ok_and(|reply| reply.status() == 201) });
            tokio::time::sleep(Duration::from_millis(*pause_ms)).await;
            server.kill();
            let answered = first.await.expect("no panic");
            server.restart(&[]).await;
            let api = server.api();
            assert_eq!(state(&api, &vm).await, "RUNNING");
            counting(&api, &vm).await;
            assert_clock(&api, &vm).await;
            let kept = made(&api, &vm).await;
            assert!(kept.len() == count || kept.is_empty() && !answered, "not all, and not none: {kept:?}");
            let left = std::fs::read_dir(server.root().join("snapshots")).expect("a directory").count();
            assert_eq!(left, if call == "snapshots" { kept.len() } else { 0 }, "{call} {pause_ms}");
            eprintln!("{call} cut off after {pause_ms} ms; it was done: {}, answered: {answered}", !kept.is_empty());

            // Who asks again gets what is there.
            api.send(request(&api)).await.status(201);
            let all = made(&api, &vm).await;
            assert!(all.len() == count && (kept.is_empty() || kept == all), "{kept:?} {all:?}");
            for id in all {
                if call == "fork" {
                    counting(&api, &id).await;
                    api.delete(&format!("/v1/vms/{id}")).await.status(204);
                    continue;
                }
                let copy = create(&api, json!({"memMb": 128, "snapshotId": id})).await;
                counting(&api, &copy).await;
                api.delete(&format!("/v1/vms/{copy}")).await.status(204);
                api.delete(&format!("/v1/snapshots/{id}")).await.status(204);
            }
        }
    }
    server.api().delete(&format!("/v1/vms/{vm}")).await.status(204);
    server.assert_no_trace().await;
}

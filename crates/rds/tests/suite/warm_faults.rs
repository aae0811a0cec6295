//! What goes wrong with warm starts: damaged memory, machines that die, images that go, clocks that are set back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Api, TestServer, World, cases, create, processes};
use crate::pause::assert_clock_of;
use crate::seeds::{directories, image, seeded, seeded_server};

cases![
    a_seed_whose_memory_changed_is_found_out,
    an_image_that_is_deleted_while_ten_creates_use_it_takes_no_vm_with_it,
    a_machine_that_dies_while_it_is_started_is_replaced,
    a_seed_whose_machine_dies_is_made_later,
    a_clock_that_was_set_back_confuses_nobody,
    a_hundred_forks_at_once,
];

async fn image_id(api: &Api) -> String {
    image(api).await["id"].as_str().expect("an id").to_owned()
}

fn memory_of_the_seed(server: &TestServer) -> PathBuf {
    let seed = directories(server).into_iter().find(|dir| dir.join("memory").exists());
    seed.expect("a seed").join("memory")
}

/// Changes one bit in the middle of what a file holds.
fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).expect("a file");
    let mut block = [0; 4096];
    for at in (0..file.metadata().expect("facts").len()).step_by(4096).skip(2000) {
        file.read_exact_at(&mut block, at).expect("a block");
        if block.iter().any(|byte| *byte != 0) {
            block[77] ^= 4;
            return file.write_all_at(&block, at).expect("room");
        }
    }
    panic!("it is empty");
}

async fn a_seed_whose_memory_changed_is_found_out(world: &World) {
    let (mut server, api) = seeded_server(world, &[]).await;
    flip(&memory_of_the_seed(&server));
    let (one, two) = tokio::join!(create(&api, json!({})), create(&api, json!({})));
    for vm in [&one, &two] {
        assert_eq!(api.started_from(vm).await, "boot");
    }
    api.remove(&[&one, &two]).await;
    assert_eq!(seeded(&api, &image_id(&api).await).await["seedStatus"], "ready");
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    api.remove(&[&vm]).await;
    // As a disk does it: without a trace in the file's times.
    server.stop().await;
    let memory = memory_of_the_seed(&server);
    let modified = fs::metadata(&memory).and_then(|facts| facts.modified()).expect("a time");
    flip(&memory);
    File::options().write(true).open(&memory).and_then(|file| file.set_modified(modified)).expect("a file");
    server.restart(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "boot");
    api.remove(&[&vm]).await;
    assert_eq!(seeded(&api, &image_id(&api).await).await["seedStatus"], "ready");
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    api.remove(&[&vm]).await;
    server.assert_no_trace().await;
}

async fn an_image_that_is_deleted_while_ten_creates_use_it_takes_no_vm_with_it(world: &World) {
    let server = TestServer::without_image(&world.found, &[]).await;
    let api = server.api();
    let image = api.post("/v1/images", &json!({"name": "a"})).await.status(201).json();
    let id = image["id"].as_str().expect("an id");
    for (kind, file) in world.found.image_files() {
        super::images::put_file(&api, id, kind, file).await.status(204);
    }
    assert_eq!(seeded(&api, id).await["seedStatus"], "ready");
    for wait in [0, 30, 150] {
        let wish = json!({"cpu": 1, "memMb": 256, "allowIps": [], "imageId": id});
        let creates = futures_util::future::join_all((0..10).map(|_| api.post("/v1/vms", &wish)));
        let deleting = async {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            api.delete(&format!("/v1/images/{id}")).await
        };
        let (created, deleted) = tokio::join!(creates, deleting);
        assert!(matches!(deleted.status, 204 | 409), "{deleted:?}");
        for reply in created {
            match reply.status {
                201 => {
                    let vm = reply.json()["id"].as_str().expect("an id").to_owned();
                    assert_eq!(api.sh(&vm, "sha256sum /bin/sh > /dev/null && echo alive").await, "alive");
                    api.remove(&[&vm]).await;
                }
                // Those that came too late.
                status => assert!(deleted.status == 204 && matches!(status, 400 | 404), "{wait} ms: {reply:?}"),
            }
        }
        if deleted.status == 204 {
            break;
        }
    }
    let deleted = api.delete(&format!("/v1/images/{id}")).await;
    assert!(matches!(deleted.status, 204 | 404), "{deleted:?}");
    let begun = Instant::now();
    while !directories(&server).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", directories(&server));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.assert_no_trace().await;
}

/// Ends the processes of VMs other than `kept`, as soon as there are some and this time has passed.
async fn kill_machines(server: &TestServer, kept: &[u32], after: Duration) {
    let begun = Instant::now();
    let new = || server.vm_processes().into_iter().filter(|pid| !kept.contains(pid)).collect::<Vec<_>>();
    while new().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no machine is started");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(after).await;
    new().into_iter().for_each(processes::kill);
}

const MOMENTS: [u64; 7] = [0, 5, 15, 40, 80, 120, 160];

async fn a_machine_that_dies_while_it_is_started_is_replaced(world: &World) {
    let (server, api) = seeded_server(world, &[]).await;
    let image = image_id(&api).await;
    // The first create has a program make the template of disks, which is not to be taken for a machine.
    api.remove(&[create(&api, json!({})).await]).await;
    for moment in MOMENTS {
        let wish = json!({"cpu": 1, "memMb": 256, "allowIps": []});
        let killing = kill_machines(&server, &[], Duration::from_millis(moment));
        // From its seed it did not come up, and was booted, or it ran already.
        let (reply, ()) = tokio::join!(api.post("/v1/vms", &wish), killing);
        let vm = reply.status(201).json()["id"].as_str().expect("an id").to_owned();
        let begun = Instant::now();
        let state = loop {
            let state = api.get(&format!("/v1/vms/{vm}")).await.ok().json()["state"].clone();
            if state == "STOPPED" || begun.elapsed() > Duration::from_secs(2) {
                break state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if state == "STOPPED" {
            api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
        }
        assert_eq!(api.sh(&vm, "echo alive").await, "alive", "{moment} ms");
        api.remove(&[&vm]).await;
        server.assert_no_trace().await;
        // Whatever was wrong with the machine was not the seed's fault for long. The next one would die in a boot else.
        assert_eq!(seeded(&api, &image).await["seedStatus"], "ready");
    }
}

async fn a_seed_whose_machine_dies_is_made_later(world: &World) {
    let mut server = world.bare_server(&[]).await;
    for moment in [0, 300, 1000, 2000] {
        let api = server.api();
        let begun = Instant::now();
        let building = server.root().join("seeds/build");
        let machines = || processes::holding(&building, Some(server.pid()));
        while machines().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no seed is begun");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(moment)).await;
        machines().into_iter().for_each(processes::kill);
        let image = seeded(&api, &image_id(&api).await).await;
        if image["seedStatus"] == "ready" {
            break;
        }
        assert!(image["seedError"].is_string(), "{image}");
        assert!(directories(&server).is_empty(), "{moment} ms: {:?}", directories(&server));
        let vm = create(&api, json!({})).await;
        assert_eq!(api.started_from(&vm).await, "boot");
        api.remove(&[&vm]).await;
        server.stop().await;
        server.restart(&[]).await;
    }
    assert_eq!(seeded(&server.api(), &image_id(&server.api()).await).await["seedStatus"], "ready");
    server.assert_no_trace().await;
}

async fn a_clock_that_was_set_back_confuses_nobody(world: &World) {
    const BACK: Duration = Duration::from_secs(7200);
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({"ttlSeconds": 3600, "idleTimeoutSeconds": 1800})).await;
    let stopped = create(&api, json!({})).await;
    api.sh(&stopped, "echo kept > f").await;
    api.poke(&format!("/v1/vms/{stopped}/stop")).await.status(204);
    let snapshot = api.poke(&format!("/v1/vms/{vm}/snapshots")).await.status(201).json();
    // Everything that there is now is from the future for the next server.
    server.stop().await;
    server.restart(&[("RDS_FAULT", Some(&format!("clock:-{}", BACK.as_secs())))]).await;
    let api = server.api();
    api.poke(&format!("/v1/vms/{stopped}/start")).await.status(204);
    assert_eq!(api.sh(&stopped, "cat f").await, "kept");
    let other = create(&api, json!({"snapshotId": snapshot["id"]})).await;
    for vm in [&vm, &stopped, &other] {
        assert_clock_of(&api, vm, BACK).await;
    }
    assert_eq!(api.started_from(&other).await, "seed");
    let listed = api.get("/v1/vms").await.ok().json();
    assert_eq!(listed.as_array().expect("a list").len(), 3);
    let second = api.poke(&format!("/v1/vms/{vm}/snapshots")).await.status(201).json();
    assert_eq!(api.get("/v1/snapshots").await.ok().json(), json!([second, snapshot]));
    // Forward again: a life that is over by then ends.
    server.stop().await;
    server.restart(&[("RDS_FAULT", Some("clock:3600"))]).await;
    let api = server.api();
    let begun = Instant::now();
    while api.get(&format!("/v1/vms/{vm}")).await.status != 404 {
        assert!(begun.elapsed() < Duration::from_secs(10), "it lives on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(api.sh(&other, "echo alive").await, "alive");
    api.remove(&[&stopped, &other]).await;
    server.assert_no_trace().await;
}

async fn a_hundred_forks_at_once(world: &World) {
    let server = world.own_server(&[("MAX_VMS", "101")]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    api.sh(&vm, "echo shared > f; echo memory > /dev/shm/m").await;
    let begun = Instant::now();
    // On a host that is emulated itself this takes longer than all other requests may, and so do a hundred commands at once.
    let order = api.request(reqwest::Method::POST, &format!("/v1/vms/{vm}/fork")).timeout(Duration::from_secs(600));
    let forks = api.send(order.json(&json!({"count": 100}))).await.status(201).json();
    eprintln!("measured: 100 forks of 128 MiB in {:?}", begun.elapsed());
    let ids: Vec<String> = forks["vms"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|vm| vm["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), 100);
    let said = futures_util::future::join_all(ids.iter().map(async |vm| {
        let command = "cat f /dev/shm/m /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1";
        let reply = api.exec_with(vm, json!({"cmd": command, "timeoutMs": 120_000})).await;
        assert_eq!(reply["exitCode"], 0, "{vm}: {reply}");
        let said = reply["stdout"].as_str().and_then(|said| said.strip_prefix("shared\nmemory\n"));
        said.unwrap_or_else(|| panic!("{vm}: {reply}")).to_owned()
    }));
    let mut said = said.await;
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 100, "two forks agree");
    api.remove(&[ids, vec![vm]].concat()).await;
    server.assert_no_trace().await;
}

//! The warm pool: machines that run already wait to become VMs.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{TestServer, World, cases, create, processes};

cases![
    a_create_takes_a_machine_that_waits,
    machines_of_the_pool_have_nothing_in_common,
    a_machine_becomes_a_vm_with_any_disk_secrets_and_peers,
    sizes_in_use_get_machines_too_up_to_the_maximum,
    the_next_server_takes_the_pool_over_or_ends_it,
    a_server_that_dies_while_it_makes_or_hands_out_a_machine_leaves_nothing,
    a_machine_that_died_in_the_pool_is_not_missed,
    the_pool_follows_its_image,
];

const LIMIT: Duration = Duration::from_secs(120);

const ON: (&str, &str) = ("ENABLE_WARM_POOL", "true");

/// Machines that wait, by their directories.
fn waiting(server: &TestServer) -> Vec<String> {
    let ids = server.vm_directories().into_iter().filter(|dir| dir.join("pool.json").exists());
    let mut ids: Vec<_> = ids.map(|dir| dir.file_name().expect("a name").to_string_lossy().into_owned()).collect();
    ids.sort();
    ids
}

/// Waits until so many machines wait, all of which `fit`.
async fn filled(server: &TestServer, count: usize, fits: impl Fn(&Value) -> bool) -> Vec<String> {
    let begun = Instant::now();
    let fits = |id: &String| {
        let record = std::fs::read(server.root().join("vms").join(id).join("pool.json")).unwrap_or_default();
        serde_json::from_slice(&record).is_ok_and(|record: Value| fits(&record))
    };
    loop {
        let ids = waiting(server);
        if ids.len() == count && ids.iter().all(fits) {
            return ids;
        }
        assert!(begun.elapsed() < LIMIT, "the pool has {ids:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn full(server: &TestServer, count: usize) -> Vec<String> {
    filled(server, count, |_| true).await
}

/// Nothing is left but what waits.
async fn assert_only_the_pool(server: &TestServer, count: usize) {
    let ids = full(server, count).await;
    assert_eq!((server.vm_processes().len(), server.vm_directories().len()), (count, count), "{ids:?}");
    assert_eq!(server.api().get("/v1/vms").await.ok().json(), json!([]));
}

async fn a_create_takes_a_machine_that_waits(world: &World) {
    let server = world.own_server(&[ON, ("MAX_VMS", "1")]).await;
    let api = server.api();
    let ids = full(&server, 1).await;
    // Nobody sees it, and it takes nobody's place.
    assert_eq!(api.get("/v1/vms").await.ok().json(), json!([]));
    api.get(&format!("/v1/vms/{}", ids[0])).await.status(404);
    api.delete(&format!("/v1/vms/{}", ids[0])).await.status(404);
    assert_eq!(api.get("/v1/admin/overview").await.ok().json()["counts"]["activeVms"], 0);
    let vm = create(&api, json!({"name": "first"})).await;
    assert_eq!((&vm, api.started_from(&vm).await), (&ids[0], json!("pool")));
    let timings = api.get(&format!("/v1/vms/{vm}")).await.ok().json()["timings"].clone();
    assert_eq!((&timings["bootMs"], &timings["restoreMs"]), (&json!(0.0), &json!(0.0)), "{timings}");
    let name: String = vm.chars().take(8).collect();
    assert_eq!(api.sh(&vm, "hostname; id -u; pwd").await, format!("vm-{name}\n1000\n/workspace"));
    api.sh(&vm, "echo kept > f && sync").await;
    // Another one waits now, and does not count.
    assert_ne!(full(&server, 1).await, ids);
    let refused = api.post("/v1/vms", &json!({"cpu": 1, "memMb": 256, "allowIps": []})).await.status(429);
    assert!(refused.message().contains("maxVms=1"));
    let before = waiting(&server);
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    assert_eq!((api.sh(&vm, "cat f").await, api.started_from(&vm).await), ("kept".into(), json!("seed")));
    assert_eq!(waiting(&server), before, "a start does not take from the pool: the VM is another one");
    api.remove(&[&vm]).await;
    assert_only_the_pool(&server, 1).await;
}

/// What a guest says of itself that no other may say.
const SELF: &str = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; \
                    head -c 16 /dev/urandom | base64; head -c 16 /dev/random | base64";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

async fn machines_of_the_pool_have_nothing_in_common(world: &World) {
    let server = world.own_server(&[ON, ("WARM_POOL_TARGET", "3")]).await;
    let api = server.api();
    let mut said = HashSet::new();
    for round in 0..3 {
        full(&server, 3).await;
        // So that a guest that went on with the seed's time would be found out.
        tokio::time::sleep(Duration::from_secs(1)).await;
        // One more than wait.
        let vms = futures_util::future::join_all((0..4).map(|_| create(&api, json!({})))).await;
        let mut from = Vec::new();
        for vm in &vms {
            from.push(api.started_from(vm).await.as_str().expect("a word").to_owned());
            let asked = now();
            let time: f64 = api.sh(vm, "date +%s.%N").await.parse().expect("a number");
            let (early, late) = (asked - time, time - now());
            assert!(early < 0.05 && late < 0.05, "its clock is off by {early} or {late} s");
            said.extend(api.sh(vm, SELF).await.lines().map(str::to_owned));
        }
        from.sort();
        assert_eq!(from, ["pool", "pool", "pool", "seed"]);
        assert_eq!(said.len(), (round + 1) * 4 * 6, "two guests agree");
        for vm in &vms {
            api.remove(&[vm]).await;
        }
    }
    assert_only_the_pool(&server, 3).await;
}

async fn a_machine_becomes_a_vm_with_any_disk_secrets_and_peers(world: &World) {
    let server = world.own_server(&[ON]).await;
    let api = server.api();
    for mib in [32, 512, 700, 3000] {
        full(&server, 1).await;
        let vm = create(&api, json!({"diskSizeMb": mib})).await;
        assert_eq!(api.started_from(&vm).await, "pool");
        let size: u64 = api.sh(&vm, "df -m --output=size /workspace | tail -1").await.trim().parse().expect("a number");
        assert!(size <= mib && size >= mib * 8 / 10, "a disk of {mib} MiB has {size}");
        let file = server.root().join("vms").join(&vm).join("disk.ext4");
        assert_eq!(std::fs::metadata(file).expect("a disk").len(), mib << 20);
        let most = (size / 2).min(60);
        api.sh(&vm, &format!("head -c {most}M /dev/zero > big && sync && rm big")).await;
        api.remove(&[&vm]).await;
    }

    full(&server, 1).await;
    let provider = create(&api, json!({"secretEnv": ["KEY=1234567"]})).await;
    assert_eq!(api.started_from(&provider).await, "pool");
    assert_eq!(api.sh(&provider, "echo $KEY").await, "1234567");
    let manifest = json!({
        "sdk": {"name": "Keys", "description": "Of keys."},
        "modules": [{"path": "key.mjs", "exports": [{
            "name": "length", "description": "Its length.", "params": [],
            "returns": {"description": "It.", "schema": {"type": "integer"}},
            "examples": [{"description": "One.", "code": "await length()"}],
        }]}],
    });
    let write = format!(
        "mkdir .rds-peer && echo '{manifest}' > .rds-peer/manifest.json && \
         echo 'export const length = () => process.env.KEY.length;' > key.mjs && sync"
    );
    api.sh(&provider, &write).await;
    full(&server, 1).await;
    let consumer = create(&api, json!({"peerLinks": [{"alias": "k", "vmId": provider}]})).await;
    assert_eq!(api.started_from(&consumer).await, "pool");
    let code = "import { length } from 'file:///workspace/peers/k/proxy/key.mjs'; result.set(await length())";
    let call = async |vm: &str| {
        let reply = api.post(&format!("/v1/vms/{vm}/run-js"), &json!({"code": code})).await.ok().json();
        assert_eq!(reply["result"], 7, "{reply}");
    };
    call(&consumer).await;

    // Snapshots: as large as most disks, and grown.
    api.sh(&consumer, "echo mine > own && sync").await;
    let snapshot = api.poke(&format!("/v1/vms/{consumer}/snapshots")).await.status(201).json()["id"].clone();
    for mib in [512, 900] {
        full(&server, 1).await;
        let links = json!([{"alias": "k", "vmId": provider}]);
        let wish = json!({"userOverlaySnapshotId": snapshot, "diskSizeMb": mib, "peerLinks": links});
        let vm = create(&api, wish).await;
        assert_eq!(api.started_from(&vm).await, "pool");
        assert_eq!(api.sh(&vm, "cat own").await, "mine");
        let size: u64 = api.sh(&vm, "df -m --output=size /workspace | tail -1").await.trim().parse().expect("a number");
        assert!(size >= mib * 8 / 10, "a disk of {mib} MiB has {size}");
        call(&vm).await;
        api.remove(&[&vm]).await;
    }
    for vm in [&consumer, &provider] {
        api.remove(&[vm]).await;
    }
    assert_only_the_pool(&server, 1).await;
}

async fn sizes_in_use_get_machines_too_up_to_the_maximum(world: &World) {
    let server = world.own_server(&[ON, ("WARM_POOL_TARGET", "2"), ("WARM_POOL_MAX_VMS", "3")]).await;
    let api = server.api();
    full(&server, 2).await;
    let wish = json!({"cpu": 2, "memMb": 192});
    let vm = create(&api, wish.clone()).await;
    assert_ne!(api.started_from(&vm).await, "pool");
    api.remove(&[&vm]).await;
    full(&server, 3).await;
    let vm = create(&api, wish).await;
    assert_eq!((api.started_from(&vm).await, api.sh(&vm, "nproc").await), (json!("pool"), "2".into()));
    api.remove(&[&vm]).await;
    // A size that is asked for last comes before the one of before.
    let vm = create(&api, json!({"memMb": 128})).await;
    api.remove(&[&vm]).await;
    let memory = |record: &Value, mib: u32| record["size"]["memMib"] == mib;
    filled(&server, 3, |record| memory(record, 256) || memory(record, 128)).await;
    assert_only_the_pool(&server, 3).await;
}

async fn the_next_server_takes_the_pool_over_or_ends_it(world: &World) {
    let mut server = world.own_server(&[ON, ("WARM_POOL_TARGET", "2")]).await;
    let ids = full(&server, 2).await;
    for kill in [true, false] {
        let machines = server.vm_processes();
        if kill {
            server.kill();
        } else {
            server.stop().await;
        }
        assert_eq!(processes::holding(&server.root().join("vms"), None), machines, "machines end with their server");
        server.restart(&[]).await;
        assert_eq!(waiting(&server), ids);
        assert_eq!(server.vm_processes(), machines);
    }
    let api = server.api();
    let begun = Instant::now();
    let vm = loop {
        // Until the agents have been reached again, VMs come from the seed.
        let vm = create(&api, json!({})).await;
        if api.started_from(&vm).await == "pool" {
            break vm;
        }
        assert!(begun.elapsed() < LIMIT);
        api.remove(&[&vm]).await;
    };
    assert!(ids.contains(&vm), "it was taken over");
    assert_eq!(api.sh(&vm, "echo alive").await, "alive");
    server.kill();
    server.restart(&[("ENABLE_WARM_POOL", Some("false"))]).await;
    let api = server.api();
    assert_eq!(api.sh(&vm, "echo alive").await, "alive");
    assert_eq!((server.vm_processes().len(), server.vm_directories().len()), (1, 1), "{:?}", waiting(&server));
    api.remove(&[&vm]).await;
    server.assert_no_trace().await;
}

async fn a_server_that_dies_while_it_makes_or_hands_out_a_machine_leaves_nothing(world: &World) {
    let mut server = world.own_server(&[ON, ("WARM_POOL_TARGET", "4")]).await;
    full(&server, 1).await;
    // At whatever step each finds it.
    for milliseconds in [20, 50, 80, 120, 170, 230] {
        server.kill();
        let left: Vec<_> = server.vm_directories();
        for dir in left.iter().skip(1).filter(|dir| dir.join("pool.json").exists()) {
            std::fs::remove_file(dir.join("pool.json")).expect("it is there");
        }
        server.restart(&[]).await;
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
    assert_only_the_pool(&server, 4).await;
    for step in ["disk", "configure", "ready"] {
        server.stop().await;
        server.restart(&[("RDS_FAULT", Some(&format!("kill:{step}")))]).await;
        full(&server, 4).await;
        let body = json!({"cpu": 1, "memMb": 256, "allowIps": []});
        let request = server.api().request(reqwest::Method::POST, "/v1/vms").json(&body);
        assert!(request.send().await.is_err(), "the server survives step {step}");
        server.wait_until_ended(Duration::from_secs(10)).await;
        server.restart(&[("RDS_FAULT", None)]).await;
        assert_only_the_pool(&server, 4).await;
    }
    // A server that ends as it should leaves no machine that is half made.
    let api = server.api();
    let vms = futures_util::future::join_all((0..4).map(|_| create(&api, json!({})))).await;
    for vm in &vms {
        api.remove(&[vm]).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stop().await;
    assert_eq!(server.vm_directories().len(), waiting(&server).len());
    assert_eq!(processes::holding(&server.root().join("vms"), None).len(), waiting(&server).len());
}

async fn a_machine_that_died_in_the_pool_is_not_missed(world: &World) {
    let server = world.own_server(&[ON]).await;
    let api = server.api();
    for pause in [0, 20, 2000] {
        let ids = full(&server, 1).await;
        for pid in server.vm_processes() {
            processes::kill(pid);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let vm = create(&api, json!({})).await;
        assert_eq!(api.sh(&vm, "echo alive").await, "alive");
        api.remove(&[&vm]).await;
        assert_ne!(full(&server, 1).await, ids);
    }
    assert_only_the_pool(&server, 1).await;
}

async fn the_pool_follows_its_image(world: &World) {
    let server = TestServer::without_image(&world.found, &[ON]).await;
    let api = server.api();
    let image = api.post("/v1/images", &json!({"name": "a"})).await.status(201).json();
    let id = image["id"].as_str().expect("an id");
    let files: Vec<(&str, &Path)> = world.found.image_files().collect();
    for (kind, file) in files {
        super::images::put_file(&api, id, kind, file).await.status(204);
    }
    api.poke(&format!("/v1/images/{id}/set-default")).await.status(204);
    let first = full(&server, 1).await;
    super::images::put_file(&api, id, "kernel", &world.found.kernel).await.status(204);
    let begun = Instant::now();
    while waiting(&server) == first {
        assert!(begun.elapsed() < LIMIT, "a machine of the old kernel waits still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    full(&server, 1).await;
    // A machine that waits keeps nobody from deleting its image.
    api.delete(&format!("/v1/images/{id}")).await.status(204);
    let begun = Instant::now();
    while !server.vm_directories().is_empty() {
        assert!(begun.elapsed() < LIMIT, "{:?}", waiting(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.assert_no_trace().await;
}

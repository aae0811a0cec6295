//! Seeds: VMs that start without being booted.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Api, TestServer, World, cases, create, processes};

cases![
    an_image_gets_a_seed_and_vms_start_from_it,
    clones_of_a_seed_have_nothing_in_common,
    a_clone_knows_the_time_and_has_a_disk_of_any_size,
    other_sizes_get_a_seed_after_their_first_use,
    a_damaged_seed_is_made_again_and_nobody_notices,
    a_seed_belongs_to_its_image,
    a_seed_that_is_removed_takes_no_vm_with_it,
    a_server_that_dies_while_it_makes_a_seed_leaves_nothing,
    an_image_that_does_not_boot_says_so,
    seeds_can_be_turned_off,
];

const LIMIT: Duration = Duration::from_secs(120);

pub(crate) async fn image(api: &Api) -> Value {
    api.get("/v1/images").await.ok().json()[0].clone()
}

/// Waits until the image's seed is no longer being made.
pub(crate) async fn seeded(api: &Api, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let image = api.get(&format!("/v1/images/{id}")).await.ok().json();
        if image["seedStatus"] == "ready" || image["seedStatus"] == "error" {
            return image;
        }
        assert!(begun.elapsed() < LIMIT, "{image}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A server that made a seed of its image.
pub(crate) async fn seeded_server(world: &World, settings: &[(&str, &str)]) -> (TestServer, Api) {
    let server = world.bare_server(settings).await;
    let api = server.api();
    let id = image(&api).await["id"].as_str().expect("an id").to_owned();
    assert_eq!(seeded(&api, &id).await["seedStatus"], "ready");
    (server, api)
}

async fn all_seeds(api: &Api) -> Vec<Value> {
    api.get("/v1/snapshots?scope=internal").await.ok().json().as_array().expect("a list").clone()
}

/// Those that are there.
async fn seeds(api: &Api) -> Vec<Value> {
    all_seeds(api).await.into_iter().filter(|seed| seed["status"] == "ready").collect()
}

pub(crate) fn directories(server: &TestServer) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(server.root().join("seeds")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

async fn an_image_gets_a_seed_and_vms_start_from_it(world: &World) {
    let (mut server, api) = seeded_server(world, &[]).await;
    let image = image(&api).await;
    let id = image["id"].as_str().expect("an id");
    assert_eq!(image["seedSnapshotId"], json!(format!("seed-{id}")));
    assert!(image["seedUpdatedAt"].is_string() && image.get("seedError").is_none(), "{image}");
    assert_eq!(image["seedSizeBytes"], seeds(&api).await[0]["sizeBytes"]);
    let listed = seeds(&api).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["id"], &listed[0]["kind"]), (&image["seedSnapshotId"], &json!("image_seed")));
    assert_eq!((&listed[0]["cpu"], &listed[0]["memMb"]), (&json!(1), &json!(256)));
    assert!(listed[0]["sizeBytes"].as_u64().expect("a number") < 160 << 20, "it is not sparse: {}", listed[0]);
    assert_eq!(api.get("/v1/snapshots?scope=all").await.ok().json(), json!(listed));
    assert_eq!(api.get("/v1/snapshots").await.ok().json(), json!([]));
    api.get("/v1/snapshots?scope=other").await.status(400);

    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    let timings = api.get(&format!("/v1/vms/{vm}")).await.ok().json()["timings"].clone();
    assert!(timings["restoreMs"].as_f64() > Some(0.0) && timings["bootMs"] == 0.0, "{timings}");
    api.sh(&vm, "echo kept > f").await;
    let taken = api.poke(&format!("/v1/vms/{vm}/snapshots")).await.status(201).json();
    assert_eq!(taken["baseSeedSnapshotId"], image["seedSnapshotId"]);
    api.delete(&format!("/v1/snapshots/{}", taken["id"].as_str().expect("an id"))).await.status(204);
    let boot = api.sh(&vm, "cat /proc/sys/kernel/random/boot_id /etc/machine-id").await;
    // A start is like a create.
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    assert_eq!(api.started_from(&vm).await, "seed");
    assert_eq!(api.sh(&vm, "cat f").await, "kept");
    assert_ne!(api.sh(&vm, "cat /proc/sys/kernel/random/boot_id /etc/machine-id").await, boot);
    // The next server has it at once.
    server.stop().await;
    server.restart(&[]).await;
    let api = server.api();
    assert_eq!(api.started_from(&vm).await, "seed", "it is forgotten how it came up");
    let other = create(&api, json!({})).await;
    assert_eq!(api.started_from(&other).await, "seed");
    assert_eq!(directories(&server).len(), 1);
    for vm in [&vm, &other] {
        api.remove(&[vm]).await;
    }
    server.assert_no_trace().await;
}

/// What a guest says of itself that no other may say.
const SELF: &str = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; \
                    head -c 16 /dev/urandom | base64; head -c 16 /dev/random | base64";
const CRYPTO: &str = "crypto.randomUUID() + Math.random() + crypto.getRandomValues(new Uint32Array(4))";

async fn clones_of_a_seed_have_nothing_in_common(world: &World) {
    let server = world.own_server(&[("MAX_VMS", "60")]).await;
    let api = server.api();
    let mut said = HashSet::new();
    let mut count = 0;
    for round in 0..10 {
        // All of a round are restored at once and asked for the same, as early as can be.
        let clones = futures_util::future::join_all((0..5).map(|_| clone_of(&api))).await;
        for (vm, text) in clones {
            assert_eq!(api.started_from(&vm).await, "seed");
            let mut words: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(words.len(), 6, "{text}");
            // Deno takes a second to start; it gets its randomness where Node does.
            let runtimes = if round == 0 { &["run-js", "run-ts"][..] } else { &["run-js"] };
            for runtime in runtimes {
                let program = json!({"code": format!("result.set({CRYPTO})")});
                let reply = api.post(&format!("/v1/vms/{vm}/{runtime}"), &program).await.ok().json();
                words.push(reply["result"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned());
            }
            count += words.len();
            said.extend(words);
            api.remove(&[&vm]).await;
        }
    }
    assert_eq!(said.len(), count, "two clones agree");
    server.assert_no_trace().await;
}

async fn clone_of(api: &Api) -> (String, String) {
    let vm = create(api, json!({})).await;
    let text = api.sh(&vm, SELF).await;
    (vm, text)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

async fn a_clone_knows_the_time_and_has_a_disk_of_any_size(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    // So that a guest that went on with the seed's time would be found out.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for mib in [32, 64, 700, 3000] {
        let vm = create(&api, json!({"diskSizeMb": mib})).await;
        assert_eq!(api.started_from(&vm).await, "seed");
        let asked = now();
        let time: f64 = api.sh(&vm, "date +%s.%N").await.parse().expect("a number");
        let (early, late) = (asked - time, time - now());
        assert!(early < 0.05 && late < 0.05, "its clock is off by {early} or {late} s");
        let size: u64 = api.sh(&vm, "df -m --output=size /workspace | tail -1").await.trim().parse().expect("a number");
        assert!(size <= mib && size >= mib * 8 / 10, "a disk of {mib} MiB has {size}");
        let most = (size / 2).min(60);
        api.sh(&vm, &format!("head -c {most}M /dev/zero > big && sync && rm big")).await;
        api.remove(&[&vm]).await;
    }
    server.assert_no_trace().await;
}

async fn other_sizes_get_a_seed_after_their_first_use(world: &World) {
    let (server, api) = seeded_server(world, &[]).await;
    let wish = json!({"cpu": 2, "memMb": 192});
    let first = create(&api, wish.clone()).await;
    assert_eq!(api.started_from(&first).await, "boot");
    api.remove(&[&first]).await;
    let begun = Instant::now();
    while seeds(&api).await.len() < 2 {
        assert!(begun.elapsed() < LIMIT, "no second seed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let second = create(&api, wish).await;
    assert_eq!(api.started_from(&second).await, "seed");
    assert_eq!(api.sh(&second, "nproc").await, "2");
    let ids: HashSet<String> = seeds(&api).await.iter().map(|seed| seed["id"].to_string()).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    api.remove(&[&second]).await;
    server.assert_no_trace().await;
}

async fn a_damaged_seed_is_made_again_and_nobody_notices(world: &World) {
    let (server, api) = seeded_server(world, &[]).await;
    let id = image(&api).await["id"].as_str().expect("an id").to_owned();
    let damages: [fn(&std::path::Path); 4] = [
        |seed| {
            let mut state = std::fs::read(seed.join("state")).expect("the state");
            let middle = state.len() / 2;
            state[middle] ^= 0x40;
            std::fs::write(seed.join("state"), state).expect("a file");
        },
        |seed| std::fs::write(seed.join("state"), b"").expect("a file"),
        |seed| {
            std::fs::remove_file(seed.join("memory")).expect("a file");
            let memory = std::fs::File::create_new(seed.join("memory")).expect("a file");
            memory.set_len(256 << 20).expect("room");
        },
        |seed| std::fs::remove_file(seed.join("memory")).expect("a file"),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let before = directories(&server);
        let seed = before.iter().find(|dir| dir.join("state").exists()).expect("a seed");
        damage(seed);
        let vm = create(&api, json!({})).await;
        assert_eq!(api.started_from(&vm).await, "boot", "damage {number}");
        api.sh(&vm, "true").await;
        api.remove(&[&vm]).await;
        assert_eq!(seeded(&api, &id).await["seedStatus"], "ready", "damage {number}");
        let vm = create(&api, json!({})).await;
        assert_eq!(api.started_from(&vm).await, "seed", "damage {number}");
        api.remove(&[&vm]).await;
    }
    server.assert_no_trace().await;
}

async fn a_seed_belongs_to_its_image(world: &World) {
    let server = TestServer::without_image(&world.found, &[]).await;
    let api = server.api();
    let image = api.post("/v1/images", &json!({"name": "a"})).await.status(201).json();
    assert_eq!(image["seedStatus"], "none");
    let id = image["id"].as_str().expect("an id");
    for (kind, file) in world.found.image_files() {
        super::images::put_file(&api, id, kind, file).await.status(204);
    }
    assert_eq!(seeded(&api, id).await["seedStatus"], "ready");
    let first = directories(&server);
    // Another kernel of the same content is another image.
    super::images::put_file(&api, id, "kernel", &world.found.kernel).await.status(204);
    let begun = Instant::now();
    while directories(&server) == first || seeds(&api).await.is_empty() {
        assert!(begun.elapsed() < LIMIT, "the old seed is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let vm = create(&api, json!({"imageId": id})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    api.remove(&[&vm]).await;
    api.delete(&format!("/v1/images/{id}")).await.status(204);
    let begun = Instant::now();
    while !directories(&server).is_empty() {
        assert!(begun.elapsed() < LIMIT, "{:?}", directories(&server));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(seeds(&api).await, Vec::<Value>::new());
}

async fn a_seed_that_is_removed_takes_no_vm_with_it(world: &World) {
    let (mut server, api) = seeded_server(world, &[]).await;
    let vm = create(&api, json!({})).await;
    let seed = directories(&server).pop().expect("a seed");
    let creates = futures_util::future::join_all((0..10).map(|_| create(&api, json!({}))));
    let removing = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        std::fs::remove_dir_all(&seed).expect("it is there");
    };
    let (mut vms, ()) = tokio::join!(creates, removing);
    vms.push(vm.clone());
    for vm in &vms {
        assert_eq!(api.sh(vm, "echo alive").await, "alive");
    }
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    for vm in &vms {
        assert_eq!(api.sh(vm, "sha256sum /bin/sh > /dev/null && echo alive").await, "alive");
    }
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    for vm in &vms {
        api.remove(&[vm]).await;
    }
    server.assert_no_trace().await;
}

async fn a_server_that_dies_while_it_makes_a_seed_leaves_nothing(world: &World) {
    let mut server = world.bare_server(&[]).await;
    // At whatever step each finds it.
    for milliseconds in [100, 700, 1500, 2300, 2700, 3100, 3300, 3500] {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        server.kill();
        server.restart(&[]).await;
    }
    let api = server.api();
    let id = image(&api).await["id"].as_str().expect("an id").to_owned();
    assert_eq!(seeded(&api, &id).await["seedStatus"], "ready");
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    api.remove(&[&vm]).await;
    server.stop().await;
    assert_eq!(directories(&server).len(), 1, "{:?}", directories(&server));
    assert_eq!(processes::holding(server.root(), None), Vec::<u32>::new());
    // A server that ends as it should leaves no machine of a seed.
    std::fs::remove_dir_all(&directories(&server)[0]).expect("a seed");
    server.restart(&[]).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.stop().await;
    assert_eq!(processes::holding(server.root(), None), Vec::<u32>::new());
    assert_eq!(directories(&server), Vec::<PathBuf>::new());
}

async fn an_image_that_does_not_boot_says_so(world: &World) {
    let server = TestServer::without_image(&world.found, &[]).await;
    let api = server.api();
    let image = api.post("/v1/images", &json!({"name": "a"})).await.status(201).json();
    let id = image["id"].as_str().expect("an id");
    // Without its modules the kernel finds no disk.
    for (kind, file) in world.found.image_files().filter(|(kind, _)| *kind != "modules") {
        super::images::put_file(&api, id, kind, file).await.status(204);
    }
    if world.found.modules.is_none() {
        return;
    }
    let image = seeded(&api, id).await;
    assert_eq!(image["seedStatus"], "error");
    assert!(image["seedError"].as_str().expect("words").contains("come up"), "{image}");
    assert_eq!((seeds(&api).await, directories(&server)), (Vec::new(), Vec::new()));
    let failed = all_seeds(&api).await.remove(0);
    assert_eq!((&failed["status"], &failed["error"]), (&json!("error"), &image["seedError"]));
    assert_eq!((&failed["imageId"], &failed["memMb"]), (&json!(id), &json!(256)));
    // What was missing is brought.
    let modules = world.found.modules.as_deref().expect("modules");
    super::images::put_file(&api, id, "modules", modules).await.status(204);
    let begun = Instant::now();
    while seeded(&api, id).await["seedStatus"] != "ready" {
        assert!(begun.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn seeds_can_be_turned_off(world: &World) {
    let mut server = world.own_server(&[]).await;
    server.stop().await;
    server.restart(&[("ENABLE_SNAPSHOTS", Some("false"))]).await;
    let api = server.api();
    assert_eq!(image(&api).await["seedStatus"], "none");
    assert_eq!(seeds(&api).await, Vec::<Value>::new());
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "boot");
    api.remove(&[&vm]).await;
}

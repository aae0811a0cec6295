//! `/v1/snapshots`: what users keep of a VM.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, TestServer, World, cases, create};

cases![
    a_snapshot_outlives_its_vm_and_makes_others,
    a_snapshot_that_is_deleted_while_ten_creates_use_it_takes_no_vm_with_it,
    senseless_snapshots_are_refused,
    a_disk_may_grow_and_not_shrink,
    a_vm_that_writes_all_the_time_is_kept_whole,
    a_server_that_dies_meanwhile_lists_nothing_half_made,
    the_same_key_never_takes_a_second_snapshot,
    the_command_line_keeps_and_uses_snapshots,
];

async fn take(api: &Api, vm: &str) -> Value {
    api.poke(&format!("/v1/vms/{vm}/snapshots")).await.status(201).json()
}

fn id(snapshot: &Value) -> &str {
    snapshot["id"].as_str().expect("an id")
}

async fn listed(api: &Api) -> Vec<String> {
    let list = api.get("/v1/snapshots").await.ok().json();
    list.as_array().expect("a list").iter().map(|snapshot| id(snapshot).to_owned()).collect()
}

async fn a_snapshot_outlives_its_vm_and_makes_others(world: &World) {
    let server = world.own_server(&[("VM_SECRET_KEY", "a-key-for-the-suite-0123")]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128, "secretEnv": ["TOKEN=sesame-7f3a"]})).await;
    // Not synced by hand, and a program that goes on.
    api.sh(&vm, "mkdir d && echo kept > d/f && head -c 3000000 /dev/urandom > big && touch -d @1000000000 d/f").await;
    api.sh(&vm, "echo secret > /tmp/gone; (sleep 1000 &) > /dev/null 2>&1; test \"$TOKEN\"").await;
    let sum = api.sh(&vm, "sha256sum big; stat -c %Y d/f").await;
    let snapshot = take(&api, &vm).await;
    assert!(id(&snapshot).starts_with("snap-"), "{snapshot}");
    assert_eq!((&snapshot["kind"], &snapshot["sourceVmId"]), (&json!("user_overlay"), &json!(vm)));
    assert_eq!((&snapshot["hasDisk"], &snapshot["hasOverlay"]), (&json!(false), &json!(true)));
    assert_eq!((&snapshot["cpu"], &snapshot["memMb"], &snapshot["diskSizeMb"]), (&json!(1), &json!(128), &json!(512)));
    assert!(snapshot["sizeBytes"].as_u64().expect("a number") < 64 << 20, "it is not sparse: {snapshot}");
    api.sh(&vm, "echo changed > d/f").await;
    assert_eq!(api.get("/v1/snapshots").await.ok().json(), json!([snapshot]));
    assert_eq!(api.get("/v1/admin/overview").await.ok().json()["counts"]["snapshots"], 1);
    let of_users: Vec<Value> =
        api.get("/v1/snapshots?scope=internal").await.ok().json().as_array().expect("a list").clone();
    assert!(of_users.iter().all(|other| other["id"] != snapshot["id"]));
    api.remove(&[&vm]).await;

    let wish = json!({"cpu": 2, "memMb": 192, "userOverlaySnapshotId": id(&snapshot)});
    let other = create(&api, wish).await;
    assert_eq!(api.get(&format!("/v1/vms/{other}")).await.ok().json()["provisionMode"], "boot");
    assert_eq!(api.sh(&other, "sha256sum big; stat -c %Y d/f").await, sum);
    assert_eq!(api.sh(&other, "cat d/f; echo \"[$TOKEN]\"; ls /tmp; nproc").await, "kept\n[]\n2");
    api.sh(&other, "! grep -l '[s]leep' /proc/[0-9]*/cmdline").await;
    let third = create(&api, json!({"memMb": 128, "snapshotId": id(&snapshot)})).await;
    api.sh(&third, "echo own > d/f").await;
    assert_eq!(api.sh(&other, "cat d/f").await, "kept");
    // They are their own: without the snapshot, and across a stop.
    api.delete(&format!("/v1/snapshots/{}", id(&snapshot))).await.status(204);
    api.delete(&format!("/v1/snapshots/{}", id(&snapshot))).await.status(404);
    api.poke(&format!("/v1/vms/{third}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{third}/start")).await.status(204);
    assert_eq!(api.sh(&third, "cat d/f; sha256sum big | cut -c 1-64").await, format!("own\n{}", &first_word(&sum)));
    api.post("/v1/vms", &json!({"cpu": 1, "memMb": 128, "allowIps": [], "snapshotId": id(&snapshot)}))
        .await
        .status(404);
    assert!(files(&server).is_empty(), "{:?}", files(&server));
    let events = api.get("/v1/admin/activity?limit=100").await.ok().json().to_string();
    assert!(events.contains("snapshot.created") && events.contains("snapshot.deleted"), "{events}");
    for vm in [&other, &third] {
        api.remove(&[vm]).await;
    }
    server.assert_no_trace().await;
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn files(server: &TestServer) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(server.root().join("snapshots")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

async fn a_snapshot_that_is_deleted_while_ten_creates_use_it_takes_no_vm_with_it(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    api.sh(&vm, "head -c 20M /dev/urandom > big").await;
    let sum = api.sh(&vm, "sha256sum big").await;
    for (kind, wait) in [("user_overlay", 0), ("user_overlay", 60), ("vm", 60), ("vm", 200)] {
        let snapshot = api.post(&format!("/v1/vms/{vm}/snapshots"), &json!({"kind": kind})).await.status(201).json();
        let wish = json!({"cpu": 1, "memMb": 128, "allowIps": [], "snapshotId": id(&snapshot)});
        let creates = futures_util::future::join_all((0..10).map(|_| api.post("/v1/vms", &wish)));
        let deleting = async {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            api.delete(&format!("/v1/snapshots/{}", id(&snapshot))).await.status(204);
            assert_eq!(listed(&api).await, Vec::<String>::new());
        };
        let (created, ()) = tokio::join!(creates, deleting);
        for reply in created {
            // Those that came too late.
            if reply.status != 404 {
                let made = reply.status(201).json();
                assert_eq!(api.sh(id(&made), "sha256sum big").await, sum);
                api.remove(&[id(&made)]).await;
            }
        }
        let begun = Instant::now();
        while !files(&server).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", files(&server));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    api.remove(&[&vm]).await;
    server.assert_no_trace().await;
}

async fn senseless_snapshots_are_refused(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}/snapshots");
    for body in ["{\"kind\":\"image_seed\"}", "{\"kind\":\"x\"}", "{\"kind\":1}", "x", "[]"] {
        api.post_raw(&path, body).await.status(400);
    }
    let snapshot = api.post(&path, &json!({"kind": "user_overlay"})).await.status(201).json();
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.poke(&path).await.status(409);
    api.poke("/v1/vms/0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e/snapshots").await.status(404);
    let image = api.post("/v1/images", &json!({"name": "another"})).await.status(201).json();
    let wish = |change: Value| {
        let mut body = json!({"cpu": 1, "memMb": 128, "allowIps": [], "userOverlaySnapshotId": id(&snapshot)});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        body
    };
    for (change, status) in [
        (json!({"imageId": image["id"]}), 400),
        (json!({"diskSizeMb": 64}), 400),
        (json!({"userOverlaySnapshotId": "snap-0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e"}), 404),
        (json!({"userOverlaySnapshotId": "../vms"}), 404),
        (json!({"userOverlaySnapshotId": "seed-img-538106ca7036"}), 400),
        (json!({"userOverlaySnapshotId": 1}), 400),
    ] {
        let reply = api.post("/v1/vms", &wish(change.clone())).await;
        assert_eq!(reply.status, status, "{change}: {reply:?}");
    }
    for name in ["..%2f..", "seed-x", "%00", "x"] {
        api.delete(&format!("/v1/snapshots/{name}")).await.status(404);
    }
    api.delete(&format!("/v1/snapshots/{}", id(&snapshot))).await.status(204);
    api.delete(&format!("/v1/images/{}", image["id"].as_str().expect("an id"))).await.status(204);
    api.remove(&[&vm]).await;
}

async fn a_disk_may_grow_and_not_shrink(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 256, "diskSizeMb": 64})).await;
    api.sh(&vm, "echo kept > f").await;
    let snapshot = take(&api, &vm).await;
    api.remove(&[&vm]).await;
    for mib in [64, 65, 512, 3000] {
        let vm = create(&api, json!({"diskSizeMb": mib, "snapshotId": id(&snapshot)})).await;
        assert_eq!(api.sh(&vm, "cat f").await, "kept");
        let size: u64 = api.sh(&vm, "df -m --output=size /workspace | tail -1").await.trim().parse().expect("a number");
        assert!(size <= mib && size >= mib * 7 / 10, "a disk of {mib} MiB has {size}");
        api.sh(&vm, &format!("head -c {}M /dev/zero > big && sync && rm big", (size / 2).min(60))).await;
        api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
        api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
        assert_eq!(api.sh(&vm, "cat f").await, "kept");
        api.remove(&[&vm]).await;
    }
    api.delete(&format!("/v1/snapshots/{}", id(&snapshot))).await.status(204);
}

/// Writes numbers to one file after the other, and says so in a third only when both have them.
const WRITER: &str = "(i=0; while :; do i=$((i+1)); echo $i >> a; sync -d a; echo $i >> b; sync -d b; \
                      head -c 20000 /dev/urandom > noise.$((i%50)); done) > /dev/null 2>&1 & echo started";

async fn a_vm_that_writes_all_the_time_is_kept_whole(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({})).await;
    api.sh(&vm, WRITER).await;
    let mut last = 0;
    let mut frozen = Vec::new();
    for round in 0..100 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let known: u64 = api.sh(&vm, "cat b 2> /dev/null | wc -l").await.trim().parse().expect("a number");
        let snapshot = take(&api, &vm).await;
        frozen.push(snapshot["frozenMs"].as_f64().expect("a time"));
        let disk = server.root().join("snapshots").join(id(&snapshot)).join("disk.ext4");
        // The journal is empty on a filesystem that was frozen, so the check finds no reason to write.
        let (a, b) = check(&disk).await;
        assert!(b <= a && a <= b + 1, "round {round}: {a} lines before {b}");
        assert!(b >= known && b >= last, "round {round}: {b} lines are kept of at least {known}");
        last = b;
        api.delete(&format!("/v1/snapshots/{}", id(&snapshot))).await.status(204);
    }
    frozen.sort_by(f64::total_cmp);
    eprintln!("measured: frozen for {} ms at the middle, {} at most", frozen[50], frozen[99]);
    assert!(frozen[50] < 300.0, "a guest that writes is frozen for long: {frozen:?}");
    api.sh(&vm, "n=$(wc -l < b); sleep 1; test $(wc -l < b) -gt $n").await;
    api.remove(&[&vm]).await;
    server.assert_no_trace().await;
}

/// Lines of the two files in a disk that is sound.
async fn check(disk: &Path) -> (u64, u64) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let run = |program: &str, args: &[&str]| {
        let mut command = tokio::process::Command::new(program);
        command.env("PATH", &path).args(args).arg(disk);
        command.output()
    };
    let checked = run("e2fsck", &["-f", "-n"]).await.expect("e2fsck is there");
    assert!(checked.status.success(), "{checked:?}");
    let mut lines = Vec::new();
    for file in ["cat /home/a", "cat /home/b"] {
        let output = run("debugfs", &["-R", file]).await.expect("debugfs is there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
        assert!(numbers.iter().zip(1..).all(|(number, wanted)| *number == wanted), "{file}: {text}");
        lines.push(numbers.len() as u64);
    }
    (lines[0], lines[1])
}

async fn a_server_that_dies_meanwhile_lists_nothing_half_made(world: &World) {
    let mut server = world.own_server(&[]).await;
    let mut vm = create(&server.api(), json!({})).await;
    server.api().sh(&vm, "head -c 60000000 /dev/urandom > big; sync").await;
    for milliseconds in [2, 10, 30, 60, 90, 130, 200, 300] {
        let api = server.api();
        let asked = tokio::spawn(async move {
            let request = api.request(Method::POST, &format!("/v1/vms/{vm}/snapshots"));
            (request.send().await.is_ok(), vm)
        });
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        server.kill();
        let (answered, again) = asked.await.expect("it does not panic");
        vm = again;
        server.restart(&[]).await;
        let api = server.api();
        let names = listed(&api).await;
        let mut dirs: Vec<String> =
            files(&server).iter().map(|dir| dir.file_name().expect("a name").to_string_lossy().into_owned()).collect();
        dirs.sort();
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(dirs, sorted, "{milliseconds} ms: files and rows differ");
        assert!(!answered || !names.is_empty(), "{milliseconds} ms: one that was answered is gone");
        for name in names {
            api.delete(&format!("/v1/snapshots/{name}")).await.status(204);
        }
        // Whatever was left of the freeze does not hold the guest up for long.
        let begun = Instant::now();
        api.sh(&vm, "echo again >> f && sync -d f").await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{milliseconds} ms: {:?}", begun.elapsed());
        api.sh(&vm, "true").await;
    }
    let api = server.api();
    take(&api, &vm).await;
    assert_eq!(listed(&api).await.len(), 1);
    api.remove(&[&vm]).await;
    server.assert_no_trace().await;
}

async fn the_same_key_never_takes_a_second_snapshot(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}/snapshots");
    let with_key = || api.send(api.request(Method::POST, &path).header("idempotency-key", "order-7"));
    let first = with_key().await.status(201).json();
    let again = with_key().await.status(201).json();
    assert_eq!(first, again);
    assert_eq!(listed(&api).await.len(), 1);
    // Many at once are taken one after the other.
    let many = futures_util::future::join_all((0..5).map(|_| take(&api, &vm))).await;
    assert_eq!(listed(&api).await.len(), 1 + many.len());
    api.remove(&[&vm]).await;
}

async fn the_command_line_keeps_and_uses_snapshots(world: &World) {
    let server = world.own_server(&[]).await;
    let rds = |args: &'static str, more: String| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rds"));
        command.args(args.split(' ')).args(more.split(' ').filter(|word| !word.is_empty()));
        command.env("RDS_URL", server.url()).env("RDS_API_KEY", crate::harness::API_KEY);
        async move {
            let output = command.output().await.expect("rds runs");
            assert!(output.status.success(), "rds {args} {more}: {output:?}");
            String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
        }
    };
    let vm = rds("vm create --mem 128 --name first", String::new()).await;
    rds("exec first -- touch kept", String::new()).await;
    let snapshot = rds("snapshot create first", String::new()).await;
    rds("vm rm", vm.clone()).await;
    let table = rds("snapshot ls", String::new()).await;
    assert!(table.contains(&snapshot) && table.contains(&vm), "{table}");
    rds("vm create --mem 128 --name second --snapshot", snapshot.clone()).await;
    assert_eq!(rds("exec second -- ls kept", String::new()).await, "kept");
    rds("snapshot rm", snapshot).await;
    rds("vm rm second", String::new()).await;
}

//! A server that is killed, and machines that are, at moments all over what is done: whatever was acknowledged is there and works,
//! whatever was not is whole or not there, and nothing of it is left that nobody knows.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, TestServer, World, cases, create, processes};
use crate::pause::state;
use crate::pool::full;
use crate::seeds::{image, seeded, seeded_server};

cases![
    a_server_killed_at_any_moment_of_a_copy_leaves_nothing,
    a_server_killed_at_any_moment_of_a_seed_leaves_nothing,
    a_server_killed_at_any_moment_of_a_refill_leaves_nothing,
    a_machine_killed_at_any_moment_of_a_copy_leaves_nothing,
];

/// How many moments of something that takes a while are tried, its beginning among them.
const MOMENTS: u32 = 3;

/// The moments of something that takes this long.
fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    (0..MOMENTS).map(move |moment| whole * moment / MOMENTS)
}

/// What is copied, by the request's path and body, and how many things it makes.
fn copies() -> [(&'static str, Value, usize); 3] {
    [("snapshots", json!({}), 1), ("snapshots", json!({"kind": "vm"}), 1), ("fork", json!({"count": 3}), 3)]
}

fn ids(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
}

/// Ids of the snapshots, and of the VMs but one.
async fn made(api: &Api, source: &str) -> Vec<String> {
    let mut made = ids(&api.get("/v1/snapshots").await.ok().json());
    made.extend(ids(&api.get("/v1/vms").await.ok().json()).into_iter().filter(|id| id != source));
    made.sort();
    made
}

async fn remove(api: &Api, made: &[String]) {
    for id in made {
        let kind = if id.starts_with("snap-") { "snapshots" } else { "vms" };
        api.delete(&format!("/v1/{kind}/{id}")).await.status(204);
    }
}

/// A server without seeds, and a VM with a program that goes on and a file.
async fn server_with_vm(world: &World) -> (TestServer, String) {
    let server = world.own_server(&[("ENABLE_SNAPSHOTS", "false")]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    api.sh(&vm, "(while :; do date +%N > /dev/shm/now; sleep 0.05; done) > /dev/null 2>&1 &").await;
    api.sh(&vm, "head -c 8M /dev/urandom > big; sha256sum big > sum; sync").await;
    (server, vm)
}

/// Its file is whole, and its program goes on.
async fn assert_works(api: &Api, vm: &str) {
    let moves = "a=$(cat /dev/shm/now); until [ \"$(cat /dev/shm/now)\" != \"$a\" ]; do sleep 0.05; done";
    api.sh(vm, &format!("sha256sum -c sum && {moves}")).await;
}

/// How long a copy takes that nobody disturbs.
async fn measure(api: &Api, vm: &str, call: &str, body: &Value) -> Duration {
    let begun = Instant::now();
    api.post(&format!("/v1/vms/{vm}/{call}"), body).await.status(201);
    let took = begun.elapsed();
    remove(api, &made(api, vm).await).await;
    took
}

async fn a_server_killed_at_any_moment_of_a_copy_leaves_nothing(world: &World) {
    let (mut server, vm) = server_with_vm(world).await;
    for (call, body, count) in copies() {
        let whole = measure(&server.api(), &vm, call, &body).await;
        let before = server.unaccounted().await;
        for moment in moments(whole) {
            let request = |api: &Api| {
                let request = api.request(Method::POST, &format!("/v1/vms/{vm}/{call}"));
                request.header("idempotency-key", format!("{call} {body} {moment:?}")).json(&body)
            };
            let asked = tokio::spawn(request(&server.api()).send());
            tokio::time::sleep(moment).await;
            server.kill();
            let answered = asked.await.expect("no panic").is_ok_and(|reply| reply.status() == 201);
            server.restart(&[]).await;
            let api = server.api();
            let kept = made(&api, &vm).await;
            let what = format!("{call} {body} cut off after {moment:?} of {whole:?}");
            assert!(kept.len() == count || kept.is_empty() && !answered, "{what}: {kept:?}, answered: {answered}");
            assert_eq!(server.unaccounted().await, before, "{what}");
            assert_works(&api, &vm).await;
            // Who asks again gets what is there.
            api.send(request(&api)).await.status(201);
            let all = made(&api, &vm).await;
            assert!(all.len() == count && (kept.is_empty() || kept == all), "{what}: {kept:?}, then {all:?}");
            if call == "fork" {
                for fork in &all {
                    assert_works(&api, fork).await;
                }
            } else if body["kind"] == "vm" {
                let copy = create(&api, json!({"memMb": 128, "snapshotId": all[0]})).await;
                assert_works(&api, &copy).await;
                api.remove(&[copy]).await;
            }
            remove(&api, &all).await;
            assert_eq!(server.unaccounted().await, before, "{what}");
        }
    }
    server.api().remove(&[vm]).await;
    server.assert_no_trace().await;
}

async fn a_server_killed_at_any_moment_of_a_seed_leaves_nothing(world: &World) {
    let begun = Instant::now();
    let (mut server, api) = seeded_server(world, &[]).await;
    let whole = begun.elapsed();
    let id = image(&api).await["id"].as_str().expect("an id").to_owned();
    let seeds = server.root().join("seeds");
    server.stop().await;
    for moment in moments(whole) {
        std::fs::remove_dir_all(&seeds).expect("it is there");
        server.restart(&[("ENABLE_SNAPSHOTS", None)]).await;
        tokio::time::sleep(moment).await;
        server.kill();
        // One that makes none itself.
        server.restart(&[("ENABLE_SNAPSHOTS", Some("false"))]).await;
        let left = server.unaccounted().await;
        assert!(
            !left.iter().any(|name| name.starts_with("seeds/") || name.starts_with("process ")),
            "{moment:?}: {left:?}"
        );
        server.stop().await;
    }
    server.restart(&[("ENABLE_SNAPSHOTS", None)]).await;
    let api = server.api();
    assert_eq!(seeded(&api, &id).await["seedStatus"], "ready");
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    api.remove(&[vm]).await;
    server.assert_no_trace().await;
}

async fn a_server_killed_at_any_moment_of_a_refill_leaves_nothing(world: &World) {
    let mut server = world.own_server(&[("ENABLE_WARM_POOL", "true"), ("WARM_POOL_TARGET", "2")]).await;
    full(&server, 2).await;
    let mut api = server.api();
    let vm = create(&api, json!({})).await;
    let begun = Instant::now();
    full(&server, 2).await;
    let whole = begun.elapsed();
    api.remove(&[vm]).await;
    let before = server.unaccounted().await;
    for moment in moments(whole) {
        let vm = create(&api, json!({})).await;
        api.sh(&vm, "echo kept > f; sync").await;
        // That took a while, in which the pool was filled: this begins anew.
        let other = create(&api, json!({})).await;
        tokio::time::sleep(moment).await;
        server.kill();
        server.restart(&[]).await;
        api = server.api();
        full(&server, 2).await;
        assert_eq!(api.sh(&vm, "cat f").await, "kept");
        assert_eq!(api.sh(&other, "echo alive").await, "alive");
        assert_eq!(server.unaccounted().await, before, "{moment:?} of {whole:?}");
        api.remove(&[vm, other]).await;
    }
    full(&server, 2).await;
    let vm = create(&api, json!({})).await;
    assert_eq!(api.started_from(&vm).await, "pool");
    api.remove(&[vm]).await;
}

async fn a_machine_killed_at_any_moment_of_a_copy_leaves_nothing(world: &World) {
    let (server, vm) = server_with_vm(world).await;
    let api = server.api();
    for (call, body, count) in copies() {
        let whole = measure(&api, &vm, call, &body).await;
        let before = server.unaccounted().await;
        for moment in moments(whole) {
            let what = format!("{call} {body} after {moment:?} of {whole:?}");
            let killing = async {
                tokio::time::sleep(moment).await;
                server.vm_processes().into_iter().for_each(processes::kill);
            };
            let path = format!("/v1/vms/{vm}/{call}");
            let (reply, ()) = tokio::join!(api.post(&path, &body), killing);
            let kept = made(&api, &vm).await;
            assert!(matches!(reply.status, 201 | 409 | 500 | 502 | 503 | 504), "{what}: {reply:?}");
            let there = if reply.status == 201 { count } else { 0 };
            assert_eq!(kept.len(), there, "{what}: {reply:?}, {kept:?}");
            let begun = Instant::now();
            while state(&api, &vm).await != "STOPPED" {
                assert!(begun.elapsed() < Duration::from_secs(10), "{what}: it is not noticed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            remove(&api, &kept).await;
            assert_eq!(server.unaccounted().await, before, "{what}");
            api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
            api.sh(&vm, "sha256sum -c sum").await;
        }
        // The same succeeds.
        measure(&api, &vm, call, &body).await;
    }
    api.remove(&[vm]).await;
    server.assert_no_trace().await;
}

//! VMs that keep to a part of their memory, and what a VM has freed.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Api, World, cases, create};

cases![
    a_vm_keeps_to_its_memory_until_a_program_needs_more,
    copies_keep_to_what_they_were_asked_to,
    what_a_vm_frees_is_the_hosts_again needs "Firecracker",
];

/// MiB of the VMs here, which seeds are made of, and what they are to keep to.
const ALL: u64 = 256;
const KEPT: u64 = 160;

/// Time for a guest to fill or empty its balloon; emulated, it takes some seconds beside other tests.
const PATIENCE: Duration = Duration::from_secs(120);

fn limits() -> Value {
    json!({"memoryMb": KEPT})
}

/// MiB that programs could have without anything being taken from others.
async fn available(api: &Api, vm: &str) -> u64 {
    let kib = api.sh(vm, "awk '$1 == \"MemAvailable:\" { print $2 }' /proc/meminfo").await;
    kib.parse::<u64>().expect("a number") / 1024
}

/// Waits until a VM has as much as it should have.
async fn comes_to(api: &Api, vm: &str, fits: impl Fn(u64) -> bool) -> u64 {
    let begun = Instant::now();
    loop {
        let now = available(api, vm).await;
        if fits(now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "{now} MiB");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn shown(api: &Api, vm: &str) -> Value {
    api.get(&format!("/v1/vms/{vm}")).await.ok().json()["limits"].clone()
}

/// How much less there is with most of the balloon filled: what a guest has for itself differs from one to the next.
const LESS: u64 = (ALL - KEPT) * 3 / 4;

async fn a_vm_keeps_to_its_memory_until_a_program_needs_more(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let free = create(&api, json!({})).await;
    let all = available(&api, &free).await;
    let vm = create(&api, json!({"limits": limits()})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    assert_eq!(shown(&api, &vm).await, limits());
    // All of the balloon, but for what the guest has used otherwise meanwhile.
    let kept = comes_to(&api, &vm, |now| now + (ALL - KEPT) < all + 10).await;

    // More than there is. It runs, and has it from the balloon, which keeps what is left.
    let needed = kept + 40;
    let program = json!({"cmd": format!("dd if=/dev/zero of=/dev/null bs={needed}M count=1"), "timeoutMs": 110_000});
    let ran = api.exec_with(&vm, program).await;
    assert_eq!(ran["exitCode"], 0, "{ran}");
    comes_to(&api, &vm, |now| now > kept + 20).await;

    // The next start asks again.
    for step in ["stop", "start"] {
        api.poke(&format!("/v1/vms/{vm}/{step}")).await.status(204);
    }
    comes_to(&api, &vm, |now| now + LESS < all).await;
    api.remove(&[vm, free]).await;
}

async fn copies_keep_to_what_they_were_asked_to(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let free = create(&api, json!({})).await;
    let all = available(&api, &free).await;
    let vm = create(&api, json!({"limits": limits()})).await;
    comes_to(&api, &vm, |now| now + LESS < all).await;

    let fork = format!("/v1/vms/{vm}/fork");
    let too_much = api.post(&fork, &json!({"limits": {"memoryMb": ALL + 1}})).await.status(400).message();
    assert_eq!(too_much, format!("limits.memoryMb must be an integer from 128 to {ALL}"));
    let id = |made: Value| made["vms"][0]["id"].as_str().expect("an id").to_owned();
    let snapshot = api.post(&format!("/v1/vms/{vm}/snapshots"), &json!({"kind": "vm"})).await.status(201).json();
    let on_snapshot = |limits: Value| {
        let wish = json!({"snapshotId": snapshot["id"], "limits": limits});
        create(&api, wish)
    };
    // Nothing is inherited.
    for copy in [id(api.post(&fork, &json!({})).await.status(201).json()), on_snapshot(Value::Null).await] {
        assert_eq!(shown(&api, &copy).await, Value::Null);
        comes_to(&api, &copy, |now| now + LESS > all).await;
        api.remove(&[copy]).await;
    }
    for copy in [
        id(api.post(&fork, &json!({"limits": limits()})).await.status(201).json()),
        id(api.post(&format!("/v1/vms/{free}/fork"), &json!({"limits": limits()})).await.status(201).json()),
        on_snapshot(limits()).await,
    ] {
        assert_eq!(shown(&api, &copy).await, limits());
        comes_to(&api, &copy, |now| now + LESS < all).await;
        api.remove(&[copy]).await;
    }
    api.remove(&[vm, free]).await;
}

/// MiB that a process has of the host's memory, its share of what it shares counted.
fn weight(pid: u32) -> u64 {
    let all = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let line = all.lines().find_map(|line| line.strip_prefix("Pss:")).expect("its weight");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// Waits until a process has as much as it should have.
async fn weighs(pid: u32, weighed: &[u64], fits: impl Fn(u64) -> bool) -> u64 {
    let begun = Instant::now();
    loop {
        let now = weight(pid);
        if fits(now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "{weighed:?} MiB, and then {now}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn what_a_vm_frees_is_the_hosts_again(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({})).await;
    let [pid] = server.vm_processes()[..] else { panic!("one process") };
    let before = weight(pid);
    // A program that has 100 MiB and cannot get rid of them.
    api.sh(&vm, "(dd if=/dev/zero bs=100M count=1 | sleep 1000) > /dev/null 2>&1 &").await;
    let much = weighs(pid, &[before], |now| now > before + 90).await;
    api.sh(&vm, "pkill sleep").await;
    // What is free in pieces of less than 2 MiB is not reported, and the guest may have used some of it for itself.
    let after = weighs(pid, &[before, much], |now| now + 50 < much).await;
    println!("{before} MiB became {much}, and then {after}");
    api.remove(&[vm]).await;
}

//! Pause, resume, and what becomes of VMs that nobody uses.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Api, World, cases, create, prerequisites, processes};

cases![
    a_paused_vm_stands_still_and_goes_on,
    whoever_needs_a_paused_vm_wakes_it,
    nothing_is_lost_by_a_pause,
    a_paused_vm_can_be_stopped_and_deleted,
    a_vm_stays_paused_when_the_manager_dies,
    a_paused_machine_that_dies_is_a_stopped_vm,
    an_idle_vm_is_paused,
    an_idle_vm_is_deleted_if_it_is_to_be,
    lives_end_though_the_manager_was_restarted,
];

/// Counts in `n`, ten times a second, for as long as it lives.
const COUNTER: &str =
    "sh -c 'n=0; while :; do n=$((n+1)); echo $n > n.new; mv n.new n; sleep 0.1; done' >/dev/null 2>&1 &";

pub(crate) async fn state(api: &Api, vm: &str) -> Value {
    api.get(&format!("/v1/vms/{vm}")).await.ok().json()["state"].clone()
}

async fn until(api: &Api, vm: &str, wanted: &str, limit: Duration) {
    let begun = Instant::now();
    while state(api, vm).await != wanted {
        assert!(begun.elapsed() < limit, "{vm} is not {wanted} after {limit:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Fails unless the guest's wall clock is right, to 50 ms and what asking takes.
pub(crate) async fn assert_clock(api: &Api, vm: &str) {
    assert_clock_of(api, vm, Duration::ZERO).await;
}

/// The same where the server's own clock is behind that of the tests.
pub(crate) async fn assert_clock_of(api: &Api, vm: &str, behind: Duration) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH + behind).expect("after 1970").as_secs_f64();
    let before = now();
    let guest: f64 = api.sh(vm, "date +%s.%N").await.parse().expect("a number");
    let after = now();
    assert!((before - 0.05..after + 0.05).contains(&guest), "{guest} is not between {before} and {after}");
}

async fn events(api: &Api, vm: &str) -> Vec<String> {
    let list = api.get("/v1/admin/activity?limit=200").await.ok().json();
    let mut events: Vec<String> = list
        .as_array()
        .expect("a list")
        .iter()
        .filter(|event| event["entityId"] == vm)
        .map(|event| event["type"].as_str().expect("text").to_owned())
        .collect();
    events.reverse();
    events
}

async fn a_paused_vm_stands_still_and_goes_on(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    api.poke(&format!("{path}/resume")).await.status(409);
    api.sh(&vm, COUNTER).await;
    let look = async || {
        let said = api.sh(&vm, "cat n /proc/sys/kernel/random/boot_id; cut -d ' ' -f 1 /proc/uptime").await;
        let mut lines = said.lines();
        let mut line = || lines.next().expect("three lines");
        let (count, boot, uptime) = (line().parse::<u32>(), line().to_owned(), line().parse::<f64>());
        (count.expect("a number"), boot, uptime.expect("seconds"))
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let running = Instant::now();
    let before = look().await;
    api.poke(&format!("{path}/pause")).await.status(204);
    assert_eq!(state(&api, &vm).await, "PAUSED");
    api.poke(&format!("{path}/pause")).await.status(409);
    api.poke(&format!("{path}/start")).await.status(409);
    assert_eq!(state(&api, &vm).await, "PAUSED", "what is refused wakes nobody");
    let stopped = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stood = stopped.elapsed();
    let begun = Instant::now();
    api.poke(&format!("{path}/resume")).await.status(204);
    let took = begun.elapsed();
    assert_clock(&api, &vm).await;
    let after = look().await;
    let most = (running.elapsed() - stood).as_secs_f64() * 10.0 + 5.0;
    assert!(
        f64::from(after.0 - before.0) < most,
        "its program went on while it was paused: {before:?} {after:?} {most}"
    );
    assert_eq!(before.1, after.1, "it was booted");
    // Firecracker's guests see the time of a pause pass.
    if prerequisites::monitor() == "qemu" {
        let most = (running.elapsed() - stood).as_secs_f64() + 0.5;
        assert!(after.2 > before.2 && after.2 - before.2 < most, "its monotonic clock went on: {before:?} {after:?}");
    }
    assert!(took < Duration::from_secs(2), "{took:?}");
    eprintln!("resume took {took:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(look().await.0 > after.0, "the program does not go on");
    assert_eq!(events(&api, &vm).await, ["vm.created", "vm.paused", "vm.resumed"]);
    api.delete(&path).await.status(204);
}

async fn whoever_needs_a_paused_vm_wakes_it(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 256})).await;
    let path = format!("/v1/vms/{vm}");
    let pause = async || {
        api.poke(&format!("{path}/pause")).await.status(204);
    };
    pause().await;
    assert_eq!(api.sh(&vm, "echo awake").await, "awake");
    pause().await;
    let reply = api.post(&format!("{path}/run-js"), &json!({"code": "result.set(1)"})).await.ok().json();
    assert_eq!(reply["result"], 1);
    pause().await;
    api.get(&format!("{path}/files/list?path=/workspace")).await.ok();
    pause().await;
    api.poke(&format!("{path}/snapshots")).await.status(201);
    pause().await;
    api.poke(&format!("{path}/peers/sync")).await.status(204);
    assert_eq!(state(&api, &vm).await, "RUNNING");
    pause().await;
    let secrets = api.request(reqwest::Method::PUT, &format!("{path}/secrets")).json(&json!({"secretEnv": ["A=b"]}));
    api.send(secrets).await.status(204);
    // Many at once: each has its answer.
    pause().await;
    let calls = (0..8).map(|_| api.sh(&vm, "echo $A"));
    assert_eq!(futures_util::future::join_all(calls).await, vec!["b"; 8]);
    api.delete(&path).await.status(204);
}

async fn nothing_is_lost_by_a_pause(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    let running = api.sh(&vm, "sleep 1.5; echo done");
    let refused = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        api.poke(&format!("{path}/pause")).await.status(409).message()
    };
    let (output, message) = tokio::join!(running, refused);
    assert_eq!(output, "done");
    assert!(message.contains("under way"), "{message}");
    // Pauses and calls from all sides: every call has its result.
    let pauses = async {
        let mut done = 0;
        for _ in 0..40 {
            done += u32::from(api.poke(&format!("{path}/pause")).await.status == 204);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        done
    };
    let calls = async {
        for n in 0..25 {
            assert_eq!(api.sh(&vm, &format!("echo {n}")).await, n.to_string());
            tokio::time::sleep(Duration::from_millis(n * 3)).await;
        }
    };
    let (paused, ()) = tokio::join!(pauses, calls);
    assert!(paused > 0, "it was never paused");
    api.delete(&path).await.status(204);
}

async fn a_paused_vm_can_be_stopped_and_deleted(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    api.sh(&vm, "echo kept > f").await;
    api.poke(&format!("{path}/pause")).await.status(204);
    api.poke(&format!("{path}/stop")).await.status(204);
    assert_eq!(state(&api, &vm).await, "STOPPED");
    api.poke(&format!("{path}/pause")).await.status(409);
    api.poke(&format!("{path}/resume")).await.status(409);
    api.poke(&format!("{path}/start")).await.status(204);
    assert_eq!(api.sh(&vm, "cat f").await, "kept", "it was stopped without a sync");
    api.poke(&format!("{path}/pause")).await.status(204);
    api.delete(&path).await.status(204);
    api.poke(&format!("{path}/pause")).await.status(404);
    server.assert_no_trace().await;
}

async fn a_vm_stays_paused_when_the_manager_dies(world: &World) {
    let mut server = world.own_server(&[]).await;
    let vm = create(&server.api(), json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    server.api().sh(&vm, "echo kept > f").await;
    server.api().poke(&format!("{path}/pause")).await.status(204);
    server.kill();
    server.restart(&[]).await;
    assert_eq!(state(&server.api(), &vm).await, "PAUSED");
    server.stop().await;
    server.restart(&[]).await;
    let api = server.api();
    assert_eq!(state(&api, &vm).await, "PAUSED");
    assert_eq!(api.sh(&vm, "cat f").await, "kept");
    assert_clock(&api, &vm).await;
    assert_eq!(state(&api, &vm).await, "RUNNING");
    server.kill();
    server.restart(&[]).await;
    assert_eq!(server.api().sh(&vm, "cat f").await, "kept");
    server.api().delete(&path).await.status(204);
    server.assert_no_trace().await;
}

async fn a_paused_machine_that_dies_is_a_stopped_vm(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let vm = create(&api, json!({"memMb": 128})).await;
    let path = format!("/v1/vms/{vm}");
    api.poke(&format!("{path}/pause")).await.status(204);
    server.vm_processes().into_iter().for_each(processes::kill);
    until(&api, &vm, "STOPPED", Duration::from_secs(10)).await;
    api.post(&format!("{path}/exec"), &json!({"cmd": "true"})).await.status(409);
    api.poke(&format!("{path}/start")).await.status(204);
    api.sh(&vm, "true").await;
    api.delete(&path).await.status(204);
}

async fn an_idle_vm_is_paused(world: &World) {
    let (api, vm) = world.own_vm(json!({"memMb": 128, "idleTimeoutSeconds": 2})).await;
    let shown = api.get(&format!("/v1/vms/{vm}")).await.ok().json();
    assert_eq!((&shown["idleTimeoutSeconds"], &shown["idleAction"]), (&json!(2), &json!("pause")));
    // A call that takes longer keeps it awake, and so does one after the other.
    api.sh(&vm, "sleep 3").await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(state(&api, &vm).await, "RUNNING");
        api.sh(&vm, "true").await;
    }
    until(&api, &vm, "PAUSED", Duration::from_secs(5)).await;
    assert_eq!(api.sh(&vm, "echo awake").await, "awake");
    until(&api, &vm, "PAUSED", Duration::from_secs(5)).await;
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn an_idle_vm_is_deleted_if_it_is_to_be(world: &World) {
    // Shorter than its boot, which is no idleness.
    let wish = json!({"memMb": 128, "idleTimeoutSeconds": 1, "idleAction": "delete"});
    let (api, vm) = world.own_vm(wish).await;
    api.sh(&vm, "sleep 3").await;
    let begun = Instant::now();
    while api.get(&format!("/v1/vms/{vm}")).await.status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    for wrong in [json!({"idleAction": "stop"}), json!({"idleTimeoutSeconds": 0}), json!({"idleTimeoutSeconds": "1"})] {
        let mut body = json!({"cpu": 1, "memMb": 128, "allowIps": []});
        body.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        api.post("/v1/vms", &body).await.status(400);
    }
}

async fn lives_end_though_the_manager_was_restarted(world: &World) {
    let mut server = world.own_server(&[]).await;
    let api = server.api();
    let begun = Instant::now();
    let idle = create(&api, json!({"memMb": 128, "idleTimeoutSeconds": 3})).await;
    // It lives from the request on, and is to be there for a while however slow this machine is.
    let ttl = 12 + 3 * begun.elapsed().as_secs();
    let begun = Instant::now();
    let mortal = create(&api, json!({"memMb": 128, "ttlSeconds": ttl})).await;
    api.poke(&format!("/v1/vms/{mortal}/pause")).await.status(204);
    server.kill();
    server.restart(&[]).await;
    let api = server.api();
    until(&api, &idle, "PAUSED", Duration::from_secs(10)).await;
    assert_eq!(state(&api, &mortal).await, "PAUSED");
    while api.get(&format!("/v1/vms/{mortal}")).await.status == 200 {
        assert!(begun.elapsed() < Duration::from_secs(ttl + 13));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(ttl - 2), "{:?}", begun.elapsed());
    api.delete(&format!("/v1/vms/{idle}")).await.status(204);
    server.assert_no_trace().await;
}

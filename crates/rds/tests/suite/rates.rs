//! How fast VMs may use their disks; their networks are in `egress`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Api, World, cases, create};

cases![
    a_disk_is_as_slow_as_asked_for_however_its_vm_comes_up,
    a_machine_of_the_pool_gets_a_vms_limits,
    what_a_slow_vm_has_in_memory_is_written_down_when_it_stops,
    senseless_limits_are_refused,
];

/// Bytes a second.
const RATE: u64 = 2_000_000;

/// Bytes that may come at once after a pause, at most: those of a second.
const LEAST: Duration = Duration::from_secs(3);

fn limits() -> Value {
    json!({"diskBytesPerSecond": RATE, "diskOpsPerSecond": 5_000})
}

/// How long the VM takes to write 8 MB to its disk, past its memory.
async fn time_to_write(api: &Api, vm: &str) -> Duration {
    let write = "dd if=/dev/zero of=written bs=1M count=8 oflag=direct conv=notrunc";
    let ms = api.sh(vm, &format!("b=$(date +%s%N); {write} && echo $((($(date +%s%N) - b) / 1000000))")).await;
    Duration::from_millis(ms.parse().expect("a number"))
}

async fn assert_slow(api: &Api, vm: &str) {
    assert_eq!(api.get(&format!("/v1/vms/{vm}")).await.ok().json()["limits"], limits());
    let took = time_to_write(api, vm).await;
    assert!(took > LEAST, "{took:?}");
}

async fn a_disk_is_as_slow_as_asked_for_however_its_vm_comes_up(world: &World) {
    let mut server = world.own_server(&[]).await;
    let mut api = server.api();
    let vm = create(&api, json!({"limits": limits()})).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    assert_slow(&api, &vm).await;
    for step in ["stop", "start"] {
        api.poke(&format!("/v1/vms/{vm}/{step}")).await.status(204);
    }
    assert_slow(&api, &vm).await;
    // The next server takes it up as it is.
    server.kill();
    server.restart(&[]).await;
    api = server.api();
    assert_slow(&api, &vm).await;

    // Nothing is inherited.
    let fork = format!("/v1/vms/{vm}/fork");
    let free = api.post(&fork, &json!({})).await.status(201).json()["vms"][0].clone();
    assert!(free.get("limits").is_none(), "{free}");
    let id = |vm: &Value| vm["id"].as_str().expect("an id").to_owned();
    let free = id(&free);
    let (took, other) = (time_to_write(&api, &free).await, time_to_write(&api, &vm).await);
    assert!(took * 2 < other, "{took:?} {other:?}");
    let slow = api.post(&fork, &json!({"limits": limits()})).await.status(201).json()["vms"][0].clone();
    assert_slow(&api, &id(&slow)).await;
    api.remove(&[vm, free, id(&slow)]).await;
}

async fn a_machine_of_the_pool_gets_a_vms_limits(world: &World) {
    let server = world.own_server(&[("ENABLE_WARM_POOL", "true")]).await;
    let api = server.api();
    let begun = Instant::now();
    loop {
        let vm = create(&api, json!({"limits": limits()})).await;
        let from = api.started_from(&vm).await;
        if from == "pool" {
            assert_slow(&api, &vm).await;
            return api.remove(&[vm]).await;
        }
        api.remove(&[vm]).await;
        assert!(begun.elapsed() < Duration::from_secs(120), "the pool gives nothing");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn what_a_slow_vm_has_in_memory_is_written_down_when_it_stops(world: &World) {
    let wish = json!({"memMb": 512, "limits": {"diskBytesPerSecond": 1 << 20}});
    let (api, vm) = world.own_vm(wish).await;
    // More than its disk takes in the time that a stop gives it.
    let before = api.sh(&vm, "head -c 40000000 /dev/urandom > big; sha256sum big").await;
    for step in ["stop", "start"] {
        api.poke(&format!("/v1/vms/{vm}/{step}")).await.status(204);
    }
    let read = json!({"cmd": "sha256sum big", "timeoutMs": 110_000});
    assert_eq!(api.exec_with(&vm, read).await["stdout"].as_str().expect("text").trim(), before);
    api.remove(&[vm]).await;
}

async fn senseless_limits_are_refused(world: &World) {
    let api = world.api().await;
    for bad in [
        json!({"diskBytesPerSecond": 1}),
        json!({"diskOpsPerSecond": 0}),
        json!({"networkBytesPerSecond": -5}),
        json!({"memoryMb": 129}),
    ] {
        let body = json!({"cpu": 1, "memMb": 128, "allowIps": [], "limits": bad});
        let refused = api.post("/v1/vms", &body).await.status(400).json();
        assert!(refused["message"].as_str().is_some_and(|message| message.starts_with("limits.")), "{refused}");
    }
}

//! The network of VMs that were not booted: from a seed, a snapshot, another VM's memory, or the pool.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{fails, reaches, run};
use crate::harness::lab::{self, Lab};
use crate::harness::{Api, World, cases, create};
use crate::seeds;

cases![
    a_vm_sends_and_receives_as_slowly_as_asked_for needs "network namespaces",
    a_vm_from_a_seed_or_a_copy_has_an_address_and_rules_of_its_own needs "network namespaces",
    a_machine_of_the_pool_becomes_a_vm_with_a_network needs "network namespaces",
    vms_that_come_and_go_at_once_leave_nothing needs "network namespaces",
];

/// Who may reach 203.0.113.10 and nothing else.
fn wish(more: &[(&str, Value)]) -> Value {
    let mut wish = json!({"memMb": 256, "outboundInternet": true, "allowIps": ["203.0.113.10"]});
    for (key, value) in more {
        wish[*key] = value.clone();
    }
    wish
}

/// Waits for the seed of the lab's image.
async fn seeded(lab: &Lab) -> Api {
    let api = lab.server.api();
    let id = seeds::image(&api).await["id"].as_str().expect("an id").to_owned();
    assert_eq!(seeds::seeded(&api, &id).await["seedStatus"], "ready");
    api
}

/// The VM's address, which it has and no other, with what it may reach and what not.
async fn address(api: &Api, vm: &str) -> String {
    let about = api.get(&format!("/v1/vms/{vm}")).await.ok().json();
    let address = about["guestIp"].as_str().expect("an address").to_owned();
    let has = api.sh(vm, "ip -4 -o addr show dev eth0; cat /sys/class/net/eth0/address").await;
    let last: u8 = address.rsplit('.').next().expect("a number").parse().expect("a number");
    assert!(has.contains(&format!("inet {address}/")) && has.ends_with(&format!(":{last:02x}")), "{address}: {has}");
    assert_eq!(has.matches("inet ").count(), 1, "{has}");
    reaches(api, vm, "curl -sS -m 60 http://203.0.113.10/", "GET /").await;
    for to in ["203.0.113.11", "172.16.0.1", "169.254.169.254"] {
        fails(api, vm, &format!("curl -sS -m 3 http://{to}/")).await;
    }
    address
}

/// Sends labelled datagrams for as long as it lives.
const SENDER: &str = "const s = require('dgram').createSocket('udp4'); s.on('error', () => {}); \
    const to = {'203.0.113.10': 'allowed', '203.0.113.11': 'never', '198.51.100.1': 'never', '172.16.0.1': 'never'}; \
    setInterval(() => { for (const a in to) s.send('rds-label:' + to[a] + ';', 4000, a, () => {}) }, 5)";

async fn a_vm_from_a_seed_or_a_copy_has_an_address_and_rules_of_its_own(world: &World) {
    let test = "egress::warm::a_vm_from_a_seed_or_a_copy_has_an_address_and_rules_of_its_own";
    let Some(lab) = lab::enter(world, test, &[("ENABLE_SNAPSHOTS", "true")]).await else { return };
    let api = seeded(&lab).await;
    let vm = create(&api, wish(&[])).await;
    assert_eq!(api.started_from(&vm).await, "seed");
    let own = address(&api, &vm).await;
    for step in ["stop", "start"] {
        api.poke(&format!("/v1/vms/{vm}/{step}")).await.status(204);
    }
    assert_eq!(address(&api, &vm).await, own, "it is kept across stop and start");

    api.sh(&vm, &format!("echo \"{SENDER}\" > s.js; (setsid node s.js > /dev/null 2>&1 < /dev/null &)")).await;
    let begun = Instant::now();
    while lab.ears.count(lab::WORLD, "allowed") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", lab.ears.all());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let snapshot = |kind: Value| {
        let (api, vm) = (api.clone(), vm.clone());
        async move {
            let made = api.post(&format!("/v1/vms/{vm}/snapshots"), &kind).await.status(201).json();
            json!(made["id"])
        }
    };
    let (disk, memory) = (snapshot(json!({})).await, snapshot(json!({"kind": "vm"})).await);
    let forks = api.post(&format!("/v1/vms/{vm}/fork"), &json!({"count": 2})).await.status(201).json();
    let id = |vm: &Value| vm["id"].as_str().expect("an id").to_owned();
    let mut all: Vec<String> = forks["vms"].as_array().expect("a list").iter().map(id).collect();
    for from in [disk, memory] {
        all.push(create(&api, wish(&[("snapshotId", from)])).await);
    }
    all.push(vm);
    let mut addresses = HashSet::new();
    for one in &all {
        addresses.insert(address(&api, one).await);
    }
    assert_eq!((addresses.len(), addresses.contains(&own)), (all.len(), true), "{addresses:?}");
    // Those that were copied go on sending, each as itself.
    let sent = lab.ears.count(lab::WORLD, "allowed");
    api.remove(&[all.pop().expect("the first one")]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(lab.ears.count(lab::WORLD, "allowed") > sent, "{:?}", lab.ears.all());
    api.remove(&all).await;
    let heard = lab.ears.all();
    assert!(!heard.iter().any(|line| line.contains("never")), "{heard:?}");
    lab.assert_nothing_left();
}

async fn a_machine_of_the_pool_becomes_a_vm_with_a_network(world: &World) {
    let test = "egress::warm::a_machine_of_the_pool_becomes_a_vm_with_a_network";
    let settings = [("ENABLE_SNAPSHOTS", "true"), ("ENABLE_WARM_POOL", "true"), ("WARM_POOL_TARGET", "2")];
    let Some(lab) = lab::enter(world, test, &settings).await else { return };
    let api = seeded(&lab).await;
    let begun = Instant::now();
    let mut addresses = HashSet::new();
    let mut vms = Vec::new();
    // Until two of them were in the pool.
    while vms.len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(120), "the pool gives nothing");
        let vm = create(&api, wish(&[])).await;
        if api.started_from(&vm).await == "pool" {
            addresses.insert(address(&api, &vm).await);
            vms.push(vm);
        } else {
            api.remove(&[vm]).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    assert_eq!(addresses.len(), 2);
    api.remove(&vms).await;
}

/// Has a server send back 400 KB, and tells how long that took.
const ECHO: &str = "const size = 400000, s = require('net').connect(443, '203.0.113.10'), begun = Date.now(); let got = 0; \
    s.on('data', (data) => { if ((got += data.length) === size) { console.log('ms', Date.now() - begun); s.destroy(); } }); \
    s.write(Buffer.alloc(size))";

/// The least that it takes at 50 KB a second: of a second's bytes and 128 KiB there is no more word.
const ECHO_LEAST: u64 = 4_000;

async fn a_vm_sends_and_receives_as_slowly_as_asked_for(world: &World) {
    let test = "egress::warm::a_vm_sends_and_receives_as_slowly_as_asked_for";
    let Some(mut lab) = lab::enter(world, test, &[]).await else { return };
    let mut api = lab.server.api();
    let vm = create(&api, wish(&[("limits", json!({"networkBytesPerSecond": 50_000}))])).await;
    let free = create(&api, wish(&[])).await;
    let took = async |api: &Api, vm: &str| {
        let (code, text) = run(api, vm, &format!("node -e \"{ECHO}\"")).await;
        let took = text.trim().strip_prefix("ms ").and_then(|ms| ms.parse::<u64>().ok());
        took.unwrap_or_else(|| panic!("{code} {text}"))
    };
    let (slow, fast) = (took(&api, &vm).await, took(&api, &free).await);
    assert!(slow > ECHO_LEAST && slow > 2 * fast, "{slow} {fast}");
    // What it may reach changes, and how fast does not; nor with another server.
    let change = api.request(reqwest::Method::PATCH, &format!("/v1/vms/{vm}/network"));
    api.send(change.json(&json!({"allowIps": ["203.0.113.0/24"]}))).await.status(204);
    lab.server.kill();
    lab.server.restart(&[]).await;
    api = lab.server.api();
    let slow = took(&api, &vm).await;
    assert!(slow > ECHO_LEAST, "{slow}");
    api.remove(&[vm, free]).await;
    lab.assert_nothing_left();
}

async fn vms_that_come_and_go_at_once_leave_nothing(world: &World) {
    let test = "egress::warm::vms_that_come_and_go_at_once_leave_nothing";
    let Some(lab) = lab::enter(world, test, &[("ENABLE_SNAPSHOTS", "true")]).await else { return };
    let api = seeded(&lab).await;
    let lives = (0..12).map(|_| {
        let api = api.clone();
        tokio::spawn(async move {
            let vm = create(&api, wish(&[])).await;
            reaches(&api, &vm, "curl -sS -m 90 http://203.0.113.10/", "GET /").await;
            api.remove(&[vm]).await;
        })
    });
    for life in lives.collect::<Vec<_>>() {
        life.await.expect("a life");
    }
    lab.assert_nothing_left();
}

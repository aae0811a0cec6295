//! `allowIps`, `outboundInternet` and what a guest's own user can do about them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{denials, fails, reaches};
use crate::harness::lab::{self, Lab};
use crate::harness::{Api, World, cases, create};

cases![
    addresses_in_a_list_are_reached_and_nothing_else needs "network namespaces",
    a_server_that_is_killed_lets_nothing_pass needs "network namespaces",
    rules_that_cannot_be_changed_fail_what_needs_them needs "network namespaces",
];

async fn patch(api: &Api, vm: &str, body: Value) {
    let request = api.request(Method::PATCH, &format!("/v1/vms/{vm}/network")).json(&body);
    api.send(request).await.status(204);
}

async fn addresses_in_a_list_are_reached_and_nothing_else(world: &World) {
    let test = "egress::addresses::addresses_in_a_list_are_reached_and_nothing_else";
    let Some(lab) = lab::enter(world, test, &[("METRICS_TOKEN", "egress-token")]).await else { return };
    let api = lab.server.api();
    let wish = json!({"outboundInternet": true, "allowIps": ["203.0.113.10", "10.9.9.0/24"]});
    let vm = &create(&api, wish).await;
    let other = create(&api, json!({"outboundInternet": true, "allowIps": ["0.0.0.0/0"]})).await;
    let about = async |vm: &str| api.get(&format!("/v1/vms/{vm}")).await.ok().json();
    let (own, others) = (about(vm).await["guestIp"].clone(), about(&other).await["guestIp"].clone());
    let (own, others) = (own.as_str().expect("an address"), others.as_str().expect("an address"));
    assert_ne!(own, others);
    assert!(api.sh(vm, "ip -4 -o addr show dev eth0").await.contains(own));
    assert_eq!(api.sh(vm, "cat /proc/net/if_inet6 | grep -v ' lo$' | wc -l").await, "0", "the guest has IPv6");

    for there in ["203.0.113.10", "10.9.9.9"] {
        reaches(&api, vm, &format!("curl -sS -m 60 http://{there}/"), "GET /").await;
    }
    reaches(&api, &other, "curl -sS -m 60 http://203.0.113.11/", "GET /").await;
    fails(&api, &other, "curl -sS -m 5 http://10.9.9.9/").await;
    let port = lab.server.url().rsplit(':').next().expect("a port").to_owned();
    let forbidden = [
        "http://203.0.113.11/".to_owned(),
        "http://198.51.100.2/".into(),
        "http://169.254.169.254/".into(),
        format!("http://{others}:22/"),
        format!("http://172.16.0.1:{port}/"),
        format!("http://198.51.100.1:{port}/"),
        "telnet://198.51.100.2:53".into(),
    ];
    let seen = lab.seen.all().len();
    let each: Vec<String> = forbidden.iter().map(|url| format!("! curl -sS -m 4 {url} </dev/null")).collect();
    reaches(&api, vm, &format!("{} && echo none", each.join(" && ")), "none").await;
    fails(&api, vm, "getent ahostsv4 api.example").await;
    assert_eq!(lab.seen.all().len(), seen, "{:?}", lab.seen.all().split_off(seen));
    // Its user cannot even make packets of its own.
    let raw = "node -e 'require(\"child_process\")' && ! ip link set eth0 down && ! ip addr add 172.16.0.9/32 dev eth0";
    reaches(&api, vm, &format!("{raw} && ! ping -c1 203.0.113.10; echo done"), "done").await;
    let told = denials(&api, vm).await;
    for destination in ["203.0.113.11", "198.51.100.1", "172.16.0.1", others] {
        let about = told.iter().filter(|event| event["metaJson"].to_string().contains(&format!("{destination}\\\"")));
        assert_eq!(about.count(), 1, "{destination}: {told:?}");
    }

    withdrawal(&api, vm).await;
    let network = about(vm).await["network"].clone();
    assert!(network["packets"].as_u64() > Some(0) && network["dropped"].as_u64() > Some(0), "{network}");
    let request = api.request(Method::GET, "/metrics").bearer_auth("egress-token");
    let metrics = String::from_utf8(api.send(request).await.ok().body.to_vec()).expect("text");
    for fate in ["sent", "received", "dropped"] {
        let of = |what: &str| {
            metrics.lines().find(|line| line.starts_with(&format!("rds_network_{what}_total{{fate=\"{fate}\"}} ")))
        };
        assert!(of("packets").or(of("bytes")).is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    }
    api.remove(&[vm, &other]).await;
    lab.assert_nothing_left();
}

/// A connection that is open ends when its address is taken from the list.
async fn withdrawal(api: &Api, vm: &str) {
    let talk = "const s = require('net').connect(443, '203.0.113.10'); let n = 0, last = Date.now(); \
                s.on('error', () => {}); s.on('data', () => { n++; last = Date.now(); }); \
                setInterval(() => s.write('x'), 20); \
                setInterval(() => { if (Date.now() - last > 1500) { console.log(n > 5 ? 'ended' : 'never begun'); process.exit(); } }, 50)";
    let talking = json!({"cmd": format!("node -e \"{talk}\""), "timeoutMs": 60_000});
    let talked = tokio::spawn({
        let (api, vm) = (api.clone(), vm.to_owned());
        async move { api.exec_with(&vm, talking).await }
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!talked.is_finished(), "{:?}", talked.await);
    patch(api, vm, json!({"allowIps": ["10.9.9.9"]})).await;
    let reply = talked.await.expect("a reply");
    assert!(reply["stdout"].as_str().is_some_and(|text| text.contains("ended")), "{reply}");
    reaches(api, vm, "curl -sS -m 60 http://10.9.9.9/", "GET /").await;
    fails(api, vm, "curl -sS -m 5 http://203.0.113.10/").await;
}

/// Sends labelled datagrams to whatever it may and may not reach, for minutes.
const SENDER: &str = "const s = require('dgram').createSocket('udp4'); s.on('error', () => {}); \
    const to = {'203.0.113.10': 'allowed', '203.0.113.11': 'sometimes', '198.51.100.2': 'never', '10.9.9.9': 'never', \
    '198.51.100.1': 'never', '172.16.0.1': 'never', '172.16.0.3': 'never', '169.254.169.254': 'never'}; \
    setInterval(() => { for (const a in to) s.send('rds-label:' + to[a] + ' ' + a + ';', 4000, a, () => {}) }, 3)";

async fn a_server_that_is_killed_lets_nothing_pass(world: &World) {
    let test = "egress::addresses::a_server_that_is_killed_lets_nothing_pass";
    let Some(mut lab) = lab::enter(world, test, &[]).await else { return };
    let api = lab.server.api();
    let vm = &create(&api, json!({"outboundInternet": true, "allowIps": ["203.0.113.10"]})).await;
    api.sh(vm, &format!("echo \"{SENDER}\" > s.js; (setsid node s.js > /dev/null 2>&1 < /dev/null &)")).await;
    more(&lab, 0).await;
    // Changes that are cut off at any moment.
    for round in 0..8_u64 {
        let allow = if round % 2 == 0 { "203.0.113.0/24" } else { "203.0.113.10" };
        let request = lab.server.api().request(Method::PATCH, &format!("/v1/vms/{vm}/network"));
        let change = tokio::spawn(request.json(&json!({"allowIps": [allow]})).send());
        tokio::time::sleep(Duration::from_millis(round * 10)).await;
        restart(&mut lab, None, change).await;
    }
    // Creates and their end, beside it.
    for step in ["kill:tap", "kill:rules", "kill:boot", "kill:ready"] {
        lab.server.kill();
        lab.server.restart(&[("RDS_FAULT", Some(step))]).await;
        let request = lab.server.api().request(Method::POST, "/v1/vms");
        let body = json!({"cpu": 1, "memMb": 128, "allowIps": ["0.0.0.0/0"], "outboundInternet": true});
        let create = tokio::spawn(request.json(&body).send());
        lab.server.wait_until_ended(Duration::from_secs(60)).await;
        restart(&mut lab, Some(("RDS_FAULT", None)), create).await;
        assert_eq!(lab.taps().len(), 1, "{step}: {:?}", lab.taps());
    }
    // Somebody takes all rules away, with a server and without.
    flush(&lab).await;
    lab.server.kill();
    flush(&lab).await;
    lab.server.restart(&[]).await;
    let sent = lab.ears.count("the world", "allowed 203.0.113.10");
    more(&lab, sent).await;
    // Deletes that are cut off.
    let api = lab.server.api();
    assert!(api.get(&format!("/v1/vms/{vm}")).await.ok().json()["state"] == "RUNNING");
    let delete = tokio::spawn(api.request(Method::DELETE, &format!("/v1/vms/{vm}")).send());
    tokio::time::sleep(Duration::from_millis(15)).await;
    restart(&mut lab, None, delete).await;
    let heard = lab.ears.all();
    assert!(!heard.iter().any(|line| line.contains("never")), "{heard:?}");
    assert!(sent > 200, "{heard:?}");
    // It is gone, or can be made to go.
    lab.server.api().delete(&format!("/v1/vms/{vm}")).await;
    lab.server.assert_no_trace().await;
    lab.assert_nothing_left();
}

async fn rules_that_cannot_be_changed_fail_what_needs_them(world: &World) {
    let test = "egress::addresses::rules_that_cannot_be_changed_fail_what_needs_them";
    let Some(lab) = lab::enter(world, test, &[]).await else { return };
    let api = lab.server.api();
    let wish = json!({"cpu": 1, "memMb": 256, "outboundInternet": true, "allowIps": ["203.0.113.10"]});
    let vm = &create(&api, wish.clone()).await;
    // The test has mounts of its own: this is nothing of the machine's.
    rds_lab::run(std::process::Command::new("mount").args(["--bind", "/bin/false", "/usr/sbin/nft"]));
    api.post("/v1/vms", &wish).await.status(500);
    let request = api.request(Method::PATCH, &format!("/v1/vms/{vm}/network"));
    api.send(request.json(&json!({"allowIps": ["203.0.113.11"]}))).await.status(500);
    let list = api.get("/v1/vms").await.ok().json();
    assert_eq!((list.as_array().map(Vec::len), &list[0]["allowIps"]), (Some(1), &wish["allowIps"]), "{list}");
    assert_eq!((lab.taps().len(), lab.server.vm_directories().len()), (1, 1));
    // What held before still does.
    reaches(&api, vm, "curl -sS -m 60 http://203.0.113.10/", "GET /").await;
    fails(&api, vm, "curl -sS -m 5 http://203.0.113.11/").await;
    rds_lab::run(std::process::Command::new("umount").args(["--lazy", "/usr/sbin/nft"]));
    patch(&api, vm, json!({"allowIps": ["203.0.113.11"]})).await;
    reaches(&api, vm, "curl -sS -m 60 http://203.0.113.11/", "GET /").await;
    let other = create(&api, wish).await;
    api.remove(&[vm, &other]).await;
    lab.assert_nothing_left();
}

/// Waits until more of what is allowed has arrived.
async fn more(lab: &Lab, than: usize) {
    for _ in 0..300 {
        if lab.ears.count("the world", "allowed 203.0.113.10") > than {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing is sent");
}

/// `nft flush ruleset`, after which nothing of any VM passes.
async fn flush(lab: &Lab) {
    let passed = || lab.ears.count("the world", "allowed 203.0.113.10");
    rds_lab::run(std::process::Command::new("nft").args(["flush", "ruleset"]));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = passed();
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A server that looked just then has put them back, which is as well.
    let repaired = std::process::Command::new("nft").args(["list", "table", "inet", "rds"]).output();
    assert!(passed() == before || repaired.is_ok_and(|list| list.status.success()));
}

type Sent = tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>;

/// Kills the server, whatever it answers, and starts it again.
async fn restart(lab: &mut Lab, change: Option<(&str, Option<&str>)>, under_way: Sent) {
    lab.server.kill();
    let _ = under_way.await;
    lab.server.restart(change.as_slice()).await;
}

//! `allowDomains`.

use serde_json::{Value, json};

use super::{denials, fails, reaches, run};
use crate::harness::lab;
use crate::harness::{Api, World, cases, create};

cases![
    names_in_a_list_are_reached_and_nothing_else needs "network namespaces",
    names_are_given_and_taken_while_a_vm_runs needs "network namespaces",
    a_list_with_a_fault_is_refused,
];

async fn names_in_a_list_are_reached_and_nothing_else(world: &World) {
    let Some(lab) = lab::enter(world, "egress::names::names_in_a_list_are_reached_and_nothing_else", &[]).await else {
        return;
    };
    let (api, _tls) = (lab.server.api(), lab.tls().await);
    let domains = ["api.example", "tls.example", "rebind.example", "metadata.example", "*.wild.example"];
    let vm = &create(&api, json!({"outboundInternet": true, "allowDomains": domains, "memMb": 512})).await;
    assert_eq!(api.get(&format!("/v1/vms/{vm}")).await.ok().json()["allowDomains"], json!(domains));

    fails(&api, vm, "curl -sS -m 5 http://203.0.113.10/").await;
    assert_eq!(lab.seen.count("request"), 0, "no lookup led there yet");
    reaches(&api, vm, "curl -sS -m 60 http://api.example/one", "GET /one").await;
    reaches(&api, vm, "curl -sS -m 60 http://deep.down.wild.example/two", "GET /two").await;
    reaches(&api, vm, "curl -sSk -m 60 https://tls.example/", "s_server").await;
    reaches(&api, vm, "RES_OPTIONS=use-vc getent ahostsv4 api.example", "203.0.113.10").await;
    let node = "node -e 'fetch(\"http://api.example/node\").then(r => r.text()).then(console.log)'";
    reaches(&api, vm, node, "GET /node").await;
    let ask = "node -e 'const r = new (require(\"dns\").Resolver)(); r.setServers([\"192.0.2.53\"]); \
               r.resolve4(\"api.example\", (e, a) => console.log(String(e), a))'";
    reaches(&api, vm, ask, "203.0.113.10").await;
    let deno = json!({"code": "result.set(await (await fetch('http://api.example/deno')).text())", "allowNet": true, "timeoutMs": 120_000});
    let reply = api.post(&format!("/v1/vms/{vm}/run-ts"), &deno).await.ok().json();
    assert!(reply["result"].as_str().is_some_and(|text| text.contains("GET /deno")), "{reply}");

    let seen = lab.seen.all().len();
    for forbidden in [
        "curl -sS -m 5 http://other.example/",
        "curl -sS -m 5 http://wild.example/",
        "curl -sS -m 5 http://203.0.113.11/",
        "curl -sS -m 5 http://203.0.113.10/",
        "curl -sS -m 5 -H 'Host: other.example' http://api.example/",
        "curl -sSk -m 5 --resolve other.example:443:203.0.113.20 https://other.example/",
        "curl -sSk -m 5 https://203.0.113.20/",
        "curl -sS -m 5 --http2-prior-knowledge http://api.example/",
        "curl -sS -m 5 http://api.example:8080/",
        "curl -sS -m 5 http://rebind.example/",
        "curl -sS -m 5 http://metadata.example/",
        "curl -sS -m 5 http://198.51.100.1/",
        "curl -sS -m 5 http://169.254.169.254/",
        "curl -sS -m 5 --resolve api.example:80:10.9.9.9 http://api.example/",
        "curl -sS -m 5 telnet://172.16.0.1:15080 </dev/null",
        "getent ahostsv6 other.example",
    ] {
        fails(&api, vm, forbidden).await;
    }
    let new: Vec<String> = lab.seen.all().split_off(seen);
    let lookups = |line: &&String| {
        !line.starts_with("lookup api.") && !line.starts_with("lookup rebind.") && !line.starts_with("lookup metadata.")
    };
    assert_eq!(new.iter().filter(lookups).count(), 0, "{new:?}");

    let denials = denials(&api, vm).await;
    for (key, value) in [("name", "other.example"), ("reason", "rebinding"), ("destination", "203.0.113.20")] {
        assert!(
            denials.iter().any(|event| event["metaJson"].to_string().contains(value)),
            "{key} {value}: {denials:?}"
        );
    }
    let flood = "i=0; while [ $i -lt 120 ]; do getent ahostsv4 d$i-$(head -c 30 /dev/zero | tr '\\0' x)$i.wild.example & \
                 i=$((i+1)); done > /tmp/out; wait; wc -l < /tmp/out";
    run(&api, vm, flood).await;
    assert!(lab.seen.count("xxx") <= 140, "{}", lab.seen.count("xxx"));
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn names_are_given_and_taken_while_a_vm_runs(world: &World) {
    let Some(mut lab) = lab::enter(world, "egress::names::names_are_given_and_taken_while_a_vm_runs", &[]).await else {
        return;
    };
    let api = lab.server.api();
    let vm = &create(&api, json!({"outboundInternet": true})).await;
    let network = format!("/v1/vms/{vm}/network");
    let patch = async |api: &Api, body: Value| {
        let request = api.request(reqwest::Method::PATCH, &network).json(&body);
        api.send(request).await
    };
    let get = "curl -sS -m 60 http://api.example/";
    fails(&api, vm, get).await;
    patch(&api, json!({"allowDomains": ["api.example"]})).await.status(204);
    reaches(&api, vm, get, "GET / HTTP").await;
    assert!(patch(&api, json!({"allowDomains": ["*"]})).await.status(400).message().starts_with("allowDomains: "));

    patch(&api, json!({"allowDomains": ["second.example"]})).await.status(204);
    fails(&api, vm, get).await;
    fails(&api, vm, "curl -sS -m 5 --resolve api.example:80:203.0.113.10 http://api.example/").await;
    reaches(&api, vm, "curl -sS -m 60 http://second.example/", "Host: second.example").await;

    // A server that is killed leaves nothing open, and the next one serves the VM again.
    lab.server.kill();
    lab.server.restart(&[]).await;
    let api = lab.server.api();
    fails(&api, vm, "curl -sS -m 5 --resolve second.example:80:203.0.113.11 http://second.example/").await;
    reaches(&api, vm, "curl -sS -m 60 http://second.example/", "Host: second.example").await;
    patch(&api, json!({"outboundInternet": false})).await.status(204);
    fails(&api, vm, "curl -sS -m 5 http://second.example/").await;
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn a_list_with_a_fault_is_refused(world: &World) {
    let api = world.api().await;
    for (domains, words) in [
        (json!(["https://a.example"]), "not a domain name"),
        (json!(["*.com"]), "too wide"),
        (json!(["1.2.3.4"]), "allowIps"),
        (json!(vec!["a.example"; 65]), "at most 64"),
    ] {
        let body = json!({"cpu": 1, "memMb": 256, "allowIps": [], "allowDomains": domains});
        let message = api.post("/v1/vms", &body).await.status(400).message();
        assert!(message.starts_with("allowDomains: ") && message.contains(words), "{message}");
    }
    // This server's VMs have no network.
    let body = json!({"cpu": 1, "memMb": 256, "allowIps": [], "allowDomains": ["a.example"], "outboundInternet": true});
    api.post("/v1/vms", &body).await.status(400);
}

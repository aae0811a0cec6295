//! `/v1/vms`: making, finding and naming VMs.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, TestServer, World, cases};

cases![
    a_vm_is_made_listed_and_removed,
    senseless_wishes_are_refused,
    ids_that_are_none_find_nothing,
    without_an_image_a_create_says_what_to_do,
    the_same_key_never_makes_a_second_vm,
    a_key_outlives_the_client_that_sent_it,
    a_name_belongs_to_one_vm,
    a_vm_with_a_time_to_live_ends,
    logs_are_read_from_their_end,
];

async fn a_vm_is_made_listed_and_removed(world: &World) {
    let wish = json!({"name": "made", "labels": {"team": "suite"}, "unknown": {"field": 1}, "diskSizeMb": 64});
    let (api, id) = world.own_vm(wish).await;
    assert!(id.len() == 36 && id == id.to_lowercase(), "{id}");
    let path = format!("/v1/vms/{id}");
    let vm = api.get(&path).await.ok().json();
    assert_eq!((&vm["state"], &vm["cpu"], &vm["memMb"]), (&json!("RUNNING"), &json!(1), &json!(256)));
    assert_eq!(vm["provisionMode"], json!("boot"));
    assert!(vm["startedFrom"] == "boot" || vm["startedFrom"] == "seed", "{vm}");
    assert_eq!((&vm["outboundInternet"], &vm["peerLinks"]), (&json!(false), &json!([])));
    assert_eq!((&vm["name"], &vm["labels"]), (&json!("made"), &json!({"team": "suite"})));
    let created = vm["createdAt"].as_str().expect("a time");
    assert!(created.len() == 24 && created.ends_with('Z'), "RFC 3339 with milliseconds: {created}");
    assert!(vm["timings"].is_object(), "{vm}");
    let list = api.get("/v1/vms").await.ok().json();
    assert_eq!(list.as_array().expect("a list").iter().filter(|entry| entry["id"] == json!(id)).count(), 1);
    let disk: u64 = api.sh(&id, "df -m --output=size /workspace | tail -1").await.trim().parse().expect("a number");
    assert!((32..=64).contains(&disk), "a disk of 64 MiB has {disk}");

    api.delete(&path).await.status(204);
    api.get(&path).await.status(404);
    api.delete(&path).await.status(404);
    api.post(&format!("{path}/exec"), &json!({"cmd": "true"})).await.status(404);
    let list = api.get("/v1/vms").await.ok().json();
    assert!(list.as_array().expect("a list").iter().all(|entry| entry["id"] != json!(id)));
    let server = world.server().await;
    assert!(!server.vm_directories().iter().any(|dir| dir.ends_with(&id)), "its directory is left");
}

async fn senseless_wishes_are_refused(world: &World) {
    let api = world.api().await;
    let many: Vec<String> = (0..65).map(|n| format!("10.0.0.{n}")).collect();
    for change in [
        json!({"cpu": 0}),
        json!({"cpu": 5}),
        json!({"cpu": 1.5}),
        json!({"cpu": -1}),
        json!({"cpu": "1"}),
        json!({"cpu": null}),
        json!({"cpu": 1e300}),
        json!({"memMb": 127}),
        json!({"memMb": 2049}),
        json!({"memMb": 128.5}),
        json!({"allowIps": null}),
        json!({"allowIps": "1.2.3.4"}),
        json!({"allowIps": [1]}),
        json!({"allowIps": ["example.com"]}),
        json!({"allowIps": ["1.2.3.4/33"]}),
        json!({"allowIps": ["::1"]}),
        json!({"allowIps": ["1.2.3"]}),
        json!({"allowIps": ["1.2.3.4/"]}),
        json!({"allowIps": ["1.2.3.4\n"]}),
        json!({"allowIps": many}),
        json!({"diskSizeMb": 0}),
        json!({"diskSizeMb": -1}),
        json!({"diskSizeMb": 1e12}),
        json!({"diskSizeMb": "64"}),
        json!({"outboundInternet": "yes"}),
        json!({"imageId": 1}),
        json!({"name": "a/b"}),
        json!({"name": "a\nb"}),
        json!({"name": ""}),
        json!({"labels": []}),
        json!({"ttlSeconds": 0}),
        json!({"imageId": "img-none"}),
        json!({"imageId": "../../etc"}),
    ] {
        let mut body = json!({"cpu": 1, "memMb": 256, "allowIps": []});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let reply = api.post("/v1/vms", &body).await;
        let wanted = if change.get("imageId").is_some_and(Value::is_string) { [400, 404] } else { [400, 400] };
        assert!(wanted.contains(&reply.status), "{change}: {reply:?}");
        assert!(!reply.message().is_empty());
    }
    for missing in ["cpu", "memMb", "allowIps"] {
        let mut body = json!({"cpu": 1, "memMb": 256, "allowIps": []});
        body.as_object_mut().expect("an object").remove(missing);
        let reply = api.post("/v1/vms", &body).await.status(400);
        assert!(reply.message().contains(missing), "{}", reply.message());
    }
}

async fn ids_that_are_none_find_nothing(world: &World) {
    let api = world.api().await;
    for id in ["undefined", "null", "%20", "%09", "", "%20%20"] {
        let reply = api.get(&format!("/v1/vms/{id}")).await;
        assert_eq!(reply.status, 400, "{id:?}: {reply:?}");
    }
    let unicode = "%C3%A9%F0%9F%98%80";
    let upper = "0D6BD3A4-6F0C-4A54-8F42-9A1FBE1F2D3E";
    for id in
        ["x", "%00", "a%00b", "a%0Ab", "%2e%2e", "..%2f..", "%2Fetc%2Fpasswd", unicode, upper, "%FF", "{id}", "%25"]
    {
        for (method, tail) in [("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("POST", "/start"), ("GET", "/logs")] {
            let request = format!(
                "{method} /v1/vms/{id}{tail} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\nconnection: close\r\n\r\n",
                crate::harness::API_KEY
            );
            let (status, reply) = api.raw(request.as_bytes()).await;
            assert!(matches!(status, 400 | 404), "{method} {id}{tail}: {reply}");
            assert!(reply.contains("\"message\""), "{reply}");
        }
    }
}

async fn without_an_image_a_create_says_what_to_do(world: &World) {
    let server = TestServer::without_image(&world.found, &[]).await;
    let reply = server.api().post("/v1/vms", &json!({"cpu": 1, "memMb": 256, "allowIps": []})).await.status(400);
    assert!(reply.message().to_lowercase().contains("image"), "{}", reply.message());
    server.assert_no_trace().await;
}

async fn create_with_key(api: &Api, key: &str, body: &Value) -> crate::harness::Reply {
    api.send(api.request(Method::POST, "/v1/vms").header("idempotency-key", key).json(body)).await
}

async fn the_same_key_never_makes_a_second_vm(world: &World) {
    let api = world.api().await;
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": [], "name": "once"});
    let first = create_with_key(&api, "order-1", &body).await.status(201).json();
    let again = create_with_key(&api, "order-1", &body).await.status(201).json();
    assert_eq!(first["id"], again["id"]);
    for (field, value) in [("memMb", json!(256)), ("secretEnv", json!(["TOKEN=one"]))] {
        let mut other = body.clone();
        other[field] = value;
        create_with_key(&api, "order-1", &other).await.status(409);
    }
    let id = first["id"].as_str().expect("an id");
    api.delete(&format!("/v1/vms/{id}")).await.status(204);

    let with = |secret: &str| json!({"cpu": 1, "memMb": 128, "allowIps": [], "secretEnv": [format!("TOKEN={secret}")]});
    let first = create_with_key(&api, "order-2", &with("one")).await.status(201).json();
    assert_eq!(create_with_key(&api, "order-2", &with("one")).await.status(201).json()["id"], first["id"]);
    create_with_key(&api, "order-2", &with("two")).await.status(409);
    let id = first["id"].as_str().expect("an id");
    api.delete(&format!("/v1/vms/{id}")).await.status(204);
}

async fn a_key_outlives_the_client_that_sent_it(world: &World) {
    let server = world.own_server(&[]).await;
    let api = server.api();
    let body = json!({"cpu": 1, "memMb": 128, "allowIps": []});
    let first = {
        let (api, body) = (api.clone(), body.clone());
        tokio::spawn(async move { create_with_key(&api, "order", &body).await })
    };
    while server.vm_processes().is_empty() {
        assert!(!first.is_finished(), "no process was seen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.abort();
    let begun = Instant::now();
    let vm = loop {
        let reply = create_with_key(&api, "order", &body).await;
        if reply.status != 409 {
            break reply.status(201).json();
        }
        assert!(begun.elapsed().as_secs() < 60, "it is worked on for ever");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(api.get("/v1/vms").await.ok().json().as_array().map(Vec::len), Some(1));
    api.delete(&format!("/v1/vms/{}", vm["id"].as_str().expect("an id"))).await.status(204);
}

async fn a_name_belongs_to_one_vm(world: &World) {
    let (api, id) = world.own_vm(json!({"name": "taken", "memMb": 128})).await;
    let reply =
        api.post("/v1/vms", &json!({"cpu": 1, "memMb": 128, "allowIps": [], "name": "taken"})).await.status(409);
    assert!(reply.message().contains("taken"), "{}", reply.message());
    api.delete(&format!("/v1/vms/{id}")).await.status(204);
    let (_, id) = world.own_vm(json!({"name": "taken", "memMb": 128})).await;
    api.delete(&format!("/v1/vms/{id}")).await.status(204);
}

async fn a_vm_with_a_time_to_live_ends(world: &World) {
    let (api, id) = world.own_vm(json!({"memMb": 128, "ttlSeconds": 8})).await;
    let begun = Instant::now();
    while api.get(&format!("/v1/vms/{id}")).await.status != 404 {
        assert!(begun.elapsed().as_secs() < 40, "it lives on");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn logs_are_read_from_their_end(world: &World) {
    let (api, vm) = world.vm().await;
    let path = format!("/v1/vms/{vm}/logs");
    assert_eq!(api.get(&path).await.ok().json()["type"], "firecracker.log");
    for kind in ["firecracker.log", "firecracker.stdout.log", "firecracker.stderr.log", "serial.log", "vmm.log"] {
        let log = api.get(&format!("{path}?type={kind}&tail=1000")).await.ok().json();
        assert_eq!(log["type"], kind);
        assert!(log["lines"].is_array() && log["truncated"].is_boolean(), "{log}");
    }
    let one = api.get(&format!("{path}?type=serial.log&tail=1")).await.ok().json();
    assert!(one["lines"].as_array().expect("lines").len() <= 1, "{one}");
    for query in ["type=../../manager.db", "type=x", "tail=0", "tail=1001", "tail=-1", "tail=x", "type="] {
        api.get(&format!("{path}?{query}")).await.status(400);
    }
}

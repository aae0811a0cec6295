//! What a consumer finds in `/workspace/peers` and `/workspace/.rds`.

use reqwest::Method;
use serde_json::{Value, json};

use super::sdk::{export, javascript};
use super::stage::{MODULES, deno, invoke, link, node, stage, token};
use crate::harness::{Api, World, archives, cases, create};

cases![
    a_consumer_is_told_about_its_peers,
    nothing_of_it_can_be_changed_by_the_user,
    without_links_there_is_an_empty_index,
    a_download_of_all_files_can_be_uploaded_again,
    mounted_sources_are_a_copy_without_what_is_the_providers_own,
    a_sync_follows_the_manifest,
    a_link_can_be_changed,
    a_link_is_dead_though_another_provider_is_down,
    trees_come_back_with_a_start,
    five_thousand_files_are_mounted,
];

async fn read_json(api: &Api, vm: &str, path: &str) -> Value {
    serde_json::from_str(&api.sh(vm, &format!("cat {path}")).await).expect("JSON")
}

async fn a_consumer_is_told_about_its_peers(world: &World) {
    let stage = stage(world).await;
    let (api, vm) = (&stage.api, &stage.consumer);
    let shown = api.get(&format!("/v1/vms/{vm}")).await.ok().json()["peerLinks"].clone();
    assert_eq!(shown, json!([{"alias": "mail", "vmId": stage.provider, "sourceMode": "hidden"}]));
    let root = "/workspace/peers/mail";
    let index = read_json(api, vm, "/workspace/peers/index.json").await;
    let entry = json!({"alias": "mail", "sdkName": "Mail", "summary": "What Mail can do.",
        "manifestPath": format!("{root}/manifest.json"), "readmePath": format!("{root}/README.md"),
        "proxyRoot": format!("{root}/proxy"), "sourceMode": "hidden"});
    assert_eq!(index, json!({"peers": [entry]}));
    let manifest = read_json(api, vm, &format!("{root}/manifest.json")).await;
    assert_eq!(manifest["modules"].as_array().map(Vec::len), Some(MODULES.len()));
    let readme = api.sh(vm, &format!("cat {root}/README.md")).await;
    for line in [
        "Use proxy imports for execution",
        "import { search } from \"file:///workspace/peers/mail/proxy/sdk/mail.ts\";",
        "import { whoAmI } from \"file:///workspace/peers/mail/proxy/sdk/mail.cjs\";",
        "The query.",
        "What it gives.",
        "await search()",
    ] {
        assert!(readme.contains(line), "{line}:\n{readme}");
    }
    let files = api.sh(vm, &format!("cd {root}/proxy && find . -type f | sort")).await;
    for (path, _) in MODULES {
        assert!(files.contains(&format!("./{path}")), "{path}: {files}");
    }
    assert!(files.contains("./sdk/mail.d.mts") && files.contains("./sdk/mail.d.cts"), "{files}");
    let runtime = api.sh(vm, "ls -A /workspace/.rds").await;
    for name in ["peer-runtime.ts", "peer-runtime.mjs", "peer-runtime.cjs", "peer-bridge.json"] {
        assert!(runtime.lines().any(|line| line == name), "{name}: {runtime}");
    }
    assert_eq!(api.exec(vm, &format!("ls {root}/source")).await["exitCode"], 2, "sources are hidden");
}

async fn nothing_of_it_can_be_changed_by_the_user(world: &World) {
    let stage = stage(world).await;
    let (api, vm) = (&stage.api, &stage.consumer);
    let foreign = api.sh(vm, "find /workspace/peers /workspace/.rds ! -uid 0 -o -perm /022 ! -type l").await;
    assert_eq!(foreign, "", "not root's, or writable by others");
    for cmd in [
        "echo x > peers/index.json",
        "echo x >> .rds/peer-runtime.mjs",
        "rm -f peers/mail/README.md",
        "rm -rf .rds",
        "mv peers elsewhere",
        "mv .rds elsewhere",
        "touch peers/mail/proxy/more.ts",
        "chmod 777 peers",
        "ln -s /etc peers/etc",
    ] {
        assert_ne!(api.exec(vm, cmd).await["exitCode"], 0, "{cmd}");
    }
    let as_seen = "import { echo } from 'file:///workspace/peers/mail/proxy/sdk/mail.mjs'; result.set(await echo(7))";
    assert_eq!(node(api, vm, as_seen).await, 7);
    // The same place by its other name.
    assert_eq!(
        api.sh(vm, "cat /home/user/peers/index.json").await,
        api.sh(vm, "cat /workspace/peers/index.json").await
    );
}

async fn a_download_of_all_files_can_be_uploaded_again(world: &World) {
    let api = world.api().await;
    let vm = create(&api, json!({"memMb": 256})).await;
    api.sh(&vm, "mkdir -p own/peers && echo 1 > own/peers/a && echo 2 > b").await;
    let path = format!("/v1/vms/{vm}/files");
    let all = api.get(&format!("{path}/download?path=/workspace")).await.ok();
    let files = archives::files(&all.body);
    for own in ["b", "own/peers/a"] {
        assert!(files.iter().any(|(name, _)| name == own), "{own} is missing");
    }
    assert!(!files.iter().any(|(name, _)| name.starts_with("peers") || name.starts_with(".rds/")), "what is generated");
    api.upload(&vm, "/workspace", all.body.to_vec()).await.status(204);
    let generated = api.get(&format!("{path}/download?path=/workspace/peers")).await.ok();
    assert!(archives::files(&generated.body).iter().any(|(name, _)| name == "index.json"));
    for dest in ["/workspace/peers", "/workspace/.rds/below"] {
        let refused = api.upload(&vm, dest, archives::targz(&[archives::file("index.json", b"x")])).await.status(400);
        assert!(refused.json()["message"].as_str().is_some_and(|text| text.contains("it is read-only")), "{dest}");
    }
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

async fn without_links_there_is_an_empty_index(world: &World) {
    let (api, vm) = world.own_vm(json!({})).await;
    assert_eq!(read_json(&api, &vm, "/workspace/peers/index.json").await, json!({"peers": []}));
    assert_ne!(
        api.exec(&vm, "cat /workspace/.rds/peer-bridge.json").await["exitCode"],
        0,
        "a bridge that leads nowhere"
    );
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
}

/// A small provider and a consumer of it that the test may do anything with.
async fn pair(api: &Api, mode: &str) -> (String, String) {
    let sdk = javascript("export const one = () => 1;", &[export("one", &[], json!({"type": "integer"}))]);
    let provider = sdk.provide(api, json!({})).await;
    let linked = json!([{"alias": "small", "vmId": provider, "sourceMode": mode}]);
    let consumer = create(api, json!({"peerLinks": linked})).await;
    (provider, consumer)
}

async fn mounted_sources_are_a_copy_without_what_is_the_providers_own(world: &World) {
    let api = world.api().await;
    let (provider, consumer) = pair(&api, "hidden").await;
    api.sh(
        &provider,
        "mkdir -p lib/peers .deno .tmp .nvm && echo deep > lib/peers/kept && ln -s /etc/passwd link && ln -s lib dirlink &&
         touch .deno/x .tmp/x .nvm/x && mkfifo fifo && echo '#!/bin/sh' > run.sh && chmod +x run.sh",
    )
    .await;
    api.send(
        api.request(Method::PATCH, &format!("/v1/vms/{consumer}/peers/small")).json(&json!({"sourceMode": "mounted"})),
    )
    .await
    .status(204);
    let found = api.sh(&consumer, "cd /workspace/peers/small/source && find . -mindepth 1 | sort").await;
    let wanted = "./.rds-peer\n./.rds-peer/manifest.json\n./lib\n./lib/peers\n./lib/peers/kept\n./run.sh\n./sdk\n./sdk/small.mjs";
    assert_eq!(found, wanted);
    assert_eq!(api.sh(&consumer, "find peers ! -uid 0 -o -perm /022").await, "");
    assert_eq!(read_json(&api, &consumer, "peers/index.json").await["peers"][0]["sourceMode"], "mounted");
    let shown = api.get(&format!("/v1/vms/{consumer}")).await.ok().json();
    assert_eq!(shown["peerLinks"][0]["sourceMode"], "mounted");
    api.sh(&provider, "echo new > lib/new").await;
    assert_ne!(api.exec(&consumer, "cat peers/small/source/lib/new").await["exitCode"], 0, "a copy, not a mount");
    api.poke(&format!("/v1/vms/{consumer}/peers/sync")).await.status(204);
    assert_eq!(api.sh(&consumer, "cat peers/small/source/lib/new").await, "new");
    api.send(
        api.request(Method::PATCH, &format!("/v1/vms/{consumer}/peers/small")).json(&json!({"sourceMode": "hidden"})),
    )
    .await
    .status(204);
    assert_ne!(api.exec(&consumer, "ls peers/small/source").await["exitCode"], 0);
    api.remove(&[&consumer, &provider]).await;
}

async fn a_sync_follows_the_manifest(world: &World) {
    let api = world.api().await;
    let (provider, consumer) = pair(&api, "hidden").await;
    let sdk = javascript(
        "export const one = () => 'one'; export const two = () => 2;",
        &[export("one", &[], json!({"type": "string"})), export("two", &[], json!({}))],
    );
    sdk.upload(&api, &provider).await;
    let program = "import { one } from 'file:///workspace/peers/small/proxy/sdk/small.mjs';
                   result.set(await one().catch((error) => error.message))";
    let before = node(&api, &consumer, program).await;
    assert!(before.as_str().is_some_and(|told| told.contains("result")), "declared an integer still: {before}");
    api.poke(&format!("/v1/vms/{consumer}/peers/sync")).await.status(204);
    assert_eq!(node(&api, &consumer, program).await, "one");
    let both = "import { one, two } from 'file:///workspace/peers/small/proxy/sdk/small.mjs'; result.set([await one(), await two()])";
    assert_eq!(deno(&api, &consumer, both).await, json!(["one", 2]));

    // A sync that fails changes nothing, nor does a create.
    let code = "export const one = () => 'one'; export const two = () => 2; export const three = 3;";
    let uncallable = javascript(code, &[export("three", &[], json!({}))]);
    uncallable.upload(&api, &provider).await;
    let links = json!({"cpu": 1, "memMb": 256, "allowIps": [], "peerLinks": [link("small", &provider)]});
    let refused = api.post("/v1/vms", &links).await.status(400).message();
    assert!(refused.starts_with("Peer alias small: declared export three is not callable"), "{refused}");
    assert_eq!(node(&api, &consumer, both).await, json!(["one", 2]));
    api.sh(&provider, "echo broken > .rds-peer/manifest.json").await;
    let refused = api.poke(&format!("/v1/vms/{consumer}/peers/sync")).await.status(400);
    assert!(refused.message().starts_with("Peer alias small: "), "{}", refused.message());
    assert_eq!(node(&api, &consumer, both).await, json!(["one", 2]));
    api.poke(&format!("/v1/vms/{provider}/stop")).await.status(204);
    let refused = api.poke(&format!("/v1/vms/{consumer}/peers/sync")).await.status(409);
    assert!(refused.message().starts_with("Peer alias small: "), "{}", refused.message());
    api.poke("/v1/vms/00000000-0000-4000-8000-000000000000/peers/sync").await.status(404);
    api.remove(&[&consumer, &provider]).await;
}

async fn a_link_can_be_changed(world: &World) {
    let stage = stage(world).await;
    let api = &stage.api;
    let patch = async |alias: &str, body: Value| {
        api.send(api.request(Method::PATCH, &format!("/v1/vms/{}/peers/{alias}", stage.consumer)).json(&body)).await
    };
    patch("nobody", json!({"sourceMode": "mounted"})).await.status(404);
    patch("mail", json!({"sourceMode": "open"})).await.status(400);
    patch("mail", json!({"sourceMode": 1})).await.status(400);
    patch("mail", json!({})).await.status(400);
    patch("mail", json!({"policy": {"alow": []}})).await.status(400);
    let shown = api.get(&format!("/v1/vms/{}", stage.consumer)).await.ok().json()["peerLinks"].clone();
    assert_eq!(shown, json!([{"alias": "mail", "vmId": stage.provider, "sourceMode": "hidden"}]));
}

async fn a_link_is_dead_though_another_provider_is_down(world: &World) {
    let api = world.api().await;
    let anonymous = world.server().await.anonymous();
    let (provider, consumer) = pair(&api, "hidden").await;
    let linked = json!([link("small", &provider), link("down", &consumer)]);
    let sdk = javascript("export const one = () => 1;", &[export("one", &[], json!({}))]);
    sdk.upload(&api, &consumer).await;
    let third = create(&api, json!({"peerLinks": linked})).await;
    let token = token(&api, &third).await;
    let call = json!({"alias": "small", "modulePath": "/workspace/sdk/small.mjs", "exportName": "one"});
    invoke(&anonymous, &token, &call).await.ok();
    api.poke(&format!("/v1/vms/{consumer}/stop")).await.status(204);
    api.delete(&format!("/v1/vms/{third}/peers/small")).await.status(204);
    invoke(&anonymous, &token, &call).await.status(403);
    let shown = api.get(&format!("/v1/vms/{third}")).await.ok().json()["peerLinks"].clone();
    assert_eq!(shown, json!([{"alias": "down", "vmId": consumer, "sourceMode": "hidden"}]));
    api.remove(&[&third, &consumer, &provider]).await;
}

async fn trees_come_back_with_a_start(world: &World) {
    let api = world.api().await;
    let (provider, consumer) = pair(&api, "mounted").await;
    let first = token(&api, &consumer).await;
    api.sh(&consumer, "echo kept > own").await;
    api.poke(&format!("/v1/vms/{consumer}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{consumer}/start")).await.status(204);
    assert_eq!(
        api.sh(&consumer, "cat own peers/small/source/sdk/small.mjs").await,
        "kept\nexport const one = () => 1;"
    );
    assert_ne!(token(&api, &consumer).await, first, "every start has a token of its own");
    let program = "import { one } from 'file:///workspace/peers/small/proxy/sdk/small.mjs'; result.set(await one())";
    assert_eq!(node(&api, &consumer, program).await, 1);
    // The provider, too, may come back.
    api.poke(&format!("/v1/vms/{provider}/stop")).await.status(204);
    api.poke(&format!("/v1/vms/{provider}/start")).await.status(204);
    assert_eq!(node(&api, &consumer, program).await, 1);
    api.remove(&[&consumer, &provider]).await;
}

async fn five_thousand_files_are_mounted(world: &World) {
    let api = world.api().await;
    let (provider, consumer) = pair(&api, "hidden").await;
    api.sh(
        &provider,
        "mkdir many && cd many && for d in $(seq 50); do mkdir $d; for f in $(seq 100); do echo $f > $d/$f; done; done",
    )
    .await;
    let begun = std::time::Instant::now();
    api.poke(&format!("/v1/vms/{consumer}/peers/sync")).await.status(204);
    let hidden = begun.elapsed();
    let linked = json!([{"alias": "small", "vmId": provider, "sourceMode": "mounted"}, link("other", &provider)]);
    let second = create(&api, json!({"peerLinks": linked})).await;
    assert_eq!(api.sh(&second, "find peers/small/source/many -type f | wc -l").await, "5000");
    assert!(hidden.as_secs() < 10, "a sync that needs none of the files took {hidden:?}");
    api.remove(&[&consumer, &second, &provider]).await;
}

//! `/v1/vms/{id}/files/…`: single files, lists, and downloads.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Api, Reply, World, archives, cases};

cases![
    a_file_goes_in_and_comes_out,
    a_directory_is_listed_and_looked_at,
    a_directory_is_downloaded_with_its_contents,
    paths_outside_the_workspace_are_refused,
    what_is_not_there_is_a_404,
    a_planted_link_leads_nowhere,
    a_large_directory_comes_out_whole,
];

async fn put(api: &Api, vm: &str, path: &str, content: Vec<u8>, executable: bool) -> Reply {
    let request = api
        .request(Method::PUT, &format!("/v1/vms/{vm}/files/content"))
        .query(&[("path", path), ("executable", if executable { "true" } else { "false" })])
        .header("content-type", "application/octet-stream")
        .body(content);
    api.send(request).await
}

async fn get(api: &Api, vm: &str, call: &str, path: &str) -> Reply {
    api.send(api.request(Method::GET, &format!("/v1/vms/{vm}/files/{call}")).query(&[("path", path)])).await
}

async fn a_file_goes_in_and_comes_out(world: &World) {
    let (api, vm) = world.vm().await;
    let content: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
    for (path, content) in [("/workspace/f/deep/é file.bin", content), ("/workspace/f/empty", Vec::new())] {
        put(&api, vm, path, content.clone(), false).await.status(204);
        assert_eq!(get(&api, vm, "content", path).await.ok().body, content);
    }
    put(&api, vm, "/workspace/f/run.sh", b"#!/bin/sh\necho ran\n".to_vec(), true).await.status(204);
    assert_eq!(api.sh(vm, "f/run.sh; stat -c %u:%g f/run.sh f/deep").await, "ran\n1000:1000\n1000:1000");
    put(&api, vm, "/workspace/f/run.sh", b"other".to_vec(), false).await.status(204);
    assert_eq!(api.sh(vm, "cat f/run.sh").await, "other");
    put(&api, vm, "/workspace/f/big", vec![0; 10 * 1024 * 1024 + 1], false).await.status(413);
}

async fn a_directory_is_listed_and_looked_at(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "rm -rf l && mkdir -p l/dir && printf abc > l/a && ln -s a l/link && mkfifo l/pipe && chmod 700 l/a")
        .await;
    let list = get(&api, vm, "list", "/workspace/l").await.ok().json();
    let seen: Vec<(&str, &str)> = list["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| (entry["name"].as_str().expect("a name"), entry["type"].as_str().expect("a type")))
        .collect();
    assert_eq!(seen, [("a", "file"), ("dir", "directory"), ("link", "symlink"), ("pipe", "other")]);
    let stat = get(&api, vm, "stat", "/workspace/l/a").await.ok().json();
    assert_eq!((&stat["name"], &stat["size"], &stat["mode"]), (&json!("a"), &json!(3), &json!(0o700)));
    assert_eq!(get(&api, vm, "stat", "/workspace/l/link").await.ok().json()["type"], "symlink");
    assert_eq!(get(&api, vm, "stat", "/workspace").await.ok().json()["type"], "directory");
}

async fn a_directory_is_downloaded_with_its_contents(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "rm -rf dl && mkdir -p dl/sub/empty && echo one > dl/one && echo two > dl/sub/two").await;
    let reply = get(&api, vm, "download", "/workspace/dl").await.ok();
    let files = archives::files(&reply.body);
    assert_eq!(files, [("one".to_owned(), b"one\n".to_vec()), ("sub/two".to_owned(), b"two\n".to_vec())]);
    let reply = get(&api, vm, "download", "/workspace/dl/one").await.ok();
    assert_eq!(archives::files(&reply.body), [("one".to_owned(), b"one\n".to_vec())]);
}

async fn paths_outside_the_workspace_are_refused(world: &World) {
    let (api, vm) = world.vm().await;
    for path in [
        "/home/user/x",
        "/home/user",
        "/etc/passwd",
        "/",
        "",
        "/workspace/../etc/passwd",
        "/workspace/a/../../etc",
        "/workspacex",
        "/workspace\0",
        "/workspace/a\0b",
        "/proc/self/environ",
        "//etc/passwd",
        "/tmp/x",
    ] {
        for call in ["download", "content", "list", "stat"] {
            let reply = get(&api, vm, call, path).await;
            assert_eq!(reply.status, 400, "{call} {path:?}: {reply:?}");
        }
        assert_eq!(put(&api, vm, path, b"x".to_vec(), false).await.status, 400, "PUT {path:?}");
        assert_eq!(api.upload(vm, path, archives::targz(&[archives::file("a", b"x")])).await.status, 400, "{path:?}");
    }
    for call in ["download", "content", "list", "stat"] {
        api.get(&format!("/v1/vms/{vm}/files/{call}")).await.status(400);
    }
}

async fn what_is_not_there_is_a_404(world: &World) {
    let (api, vm) = world.vm().await;
    for call in ["download", "content", "list", "stat"] {
        get(&api, vm, call, "/workspace/none/at/all").await.status(404);
    }
    get(&api, vm, "content", "/workspace").await.status(400);
    api.sh(vm, "echo x > plain").await;
    get(&api, vm, "list", "/workspace/plain").await.status(400);
    put(&api, vm, "/workspace/plain/below", b"x".to_vec(), false).await.status(400);
}

async fn a_planted_link_leads_nowhere(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "rm -rf p && mkdir p && ln -s /etc p/etc && ln -s /etc/shadow p/shadow && ln -s /proc/1/environ p/env && ln -s / p/root").await;
    for path in ["/workspace/p/etc/passwd", "/workspace/p/shadow", "/workspace/p/env", "/workspace/p/root/etc/passwd"] {
        for call in ["content", "download"] {
            let reply = get(&api, vm, call, path).await;
            let text = String::from_utf8_lossy(&reply.body);
            assert!(reply.status >= 400 || !text.contains("root:"), "{call} {path}: {text}");
            if call == "content" {
                assert!((400..500).contains(&reply.status), "{call} {path}: {reply:?}");
            }
        }
    }
    // Nothing of the agent's comes with a directory that holds links.
    let files = archives::files(&get(&api, vm, "download", "/workspace/p").await.ok().body);
    assert!(files.iter().all(|(_, content)| !content.windows(5).any(|window| window == b"root:")), "{files:?}");
    // Nothing is written through one.
    let reply = put(&api, vm, "/workspace/p/etc/planted", b"x".to_vec(), false).await;
    assert!((400..500).contains(&reply.status), "{reply:?}");
    let reply = api.upload(vm, "/workspace/p/etc", archives::targz(&[archives::file("planted", b"x")])).await;
    assert!((400..500).contains(&reply.status), "{reply:?}");
    let reply = api.upload(vm, "/workspace/p", archives::targz(&[archives::file("etc/planted", b"x")])).await;
    assert_eq!(api.exec(vm, "test -e /etc/planted; echo $?").await["stdout"], "1\n", "{reply:?}");
}

async fn a_large_directory_comes_out_whole(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "rm -rf big && mkdir big && head -c 8000000 /dev/urandom > big/random && seq 200 | while read n; do echo $n > big/$n; done").await;
    let sum = api.sh(vm, "sha256sum big/random | cut -d' ' -f1").await;
    let files = archives::files(&get(&api, vm, "download", "/workspace/big").await.ok().body);
    assert_eq!(files.len(), 201);
    let random = &files.iter().find(|(name, _)| name == "random").expect("it").1;
    assert_eq!(random.len(), 8_000_000);
    put(&api, vm, "/workspace/again", random.clone(), false).await.status(204);
    assert_eq!(api.sh(vm, "sha256sum again | cut -d' ' -f1; rm -r big again").await, sum);
}

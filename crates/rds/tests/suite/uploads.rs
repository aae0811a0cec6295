//! `/v1/vms/{id}/files/upload`: archives, good and hostile.

use reqwest::Method;
use tar::EntryType;

use crate::harness::archives::{self, Entry, file, special, targz};
use crate::harness::{World, cases, processes};

cases![
    an_archive_is_unpacked_for_the_user,
    all_three_content_types_are_taken_and_no_other,
    hostile_entries_are_refused_before_anything_is_written,
    damaged_archives_are_refused_before_anything_is_written,
    there_are_limits_to_size_and_number,
    a_bomb_does_no_harm,
    an_upload_that_breaks_off_writes_nothing,
];

async fn an_archive_is_unpacked_for_the_user(world: &World) {
    let (api, vm) = world.vm().await;
    let run = Entry { mode: 0o6777, ..file("bin/run", b"#!/bin/sh\necho ran\n") };
    let archive =
        targz(&[special("./dir/", EntryType::Directory, None), file("./dir/a.txt", b"a"), run, file("é", b"u")]);
    api.upload(vm, "/workspace/up/new/place", archive).await.status(204);
    let cmd = "cd up/new/place; cat dir/a.txt é; bin/run; stat -c '%u:%g %a' bin/run dir/a.txt dir";
    let seen = api.sh(vm, cmd).await;
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some("auran"));
    let modes: Vec<&str> = lines.collect();
    assert!(modes.iter().all(|line| line.starts_with("1000:1000 ")), "{seen}");
    assert!(modes[0].ends_with("755") || modes[0].ends_with("775") || modes[0].ends_with("777"), "{seen}");
    assert!(!modes[0].contains(" 6") && !modes[1].ends_with("55"), "set-id bits or the executable bit: {seen}");
    // What is there is replaced, what is not in the archive stays.
    api.upload(vm, "/workspace/up/new/place", targz(&[file("dir/a.txt", b"b")])).await.status(204);
    assert_eq!(api.sh(vm, "cd up/new/place; cat dir/a.txt; bin/run").await, "bran");
    api.upload(vm, "/workspace", targz(&[file("up/top", b"t")])).await.status(204);
    assert_eq!(api.sh(vm, "cat up/top").await, "t");
    api.upload(vm, "/workspace/up/nothing", targz(&[])).await.status(204);
    assert_eq!(api.sh(vm, "ls -A up/nothing | wc -l").await, "0");
}

async fn all_three_content_types_are_taken_and_no_other(world: &World) {
    let (api, vm) = world.vm().await;
    let path = format!("/v1/vms/{vm}/files/upload?dest=/workspace/ct");
    let archive = targz(&[file("a", b"x")]);
    for (kind, status) in [
        ("application/gzip", 204),
        ("application/x-gzip", 204),
        ("application/octet-stream", 204),
        ("application/zip", 415),
        ("text/plain", 415),
    ] {
        let request = api.request(Method::POST, &path).header("content-type", kind).body(archive.clone());
        let reply = api.send(request).await;
        assert!(reply.status == status || (status == 415 && reply.status == 400), "{kind}: {reply:?}");
    }
}

async fn hostile_entries_are_refused_before_anything_is_written(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "rm -rf hostile; mkdir hostile").await;
    let device = EntryType::Char;
    let long = format!("../{}", "a".repeat(60));
    for (what, entry) in [
        ("traversal", file("../escape", b"x")),
        ("traversal below", file("a/../../escape", b"x")),
        ("traversal in the middle", file("a/../b", b"x")),
        ("long traversal", file(&long, b"x")),
        ("absolute", file("/tmp/escape", b"x")),
        ("symlink", special("link", EntryType::Symlink, Some("/etc/passwd"))),
        ("relative symlink", special("link", EntryType::Symlink, Some("good"))),
        ("hard link", special("link", EntryType::Link, Some("good"))),
        ("device", special("dev", device, None)),
        ("block device", special("dev", EntryType::Block, None)),
        ("fifo", special("pipe", EntryType::Fifo, None)),
        ("unknown", special("what", EntryType::new(b'Z'), None)),
        ("absolute directory", special("/abs/", EntryType::Directory, None)),
    ] {
        let archive = targz(&[file("good", b"x"), entry]);
        let reply = api.upload(vm, "/workspace/hostile/sub", archive).await;
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        assert_eq!(
            api.sh(vm, "find hostile | wc -l; ls /workspace/escape /tmp/escape 2>/dev/null | wc -l").await,
            "1\n0",
            "{what}"
        );
    }
}

async fn damaged_archives_are_refused_before_anything_is_written(world: &World) {
    let (api, vm) = world.vm().await;
    api.sh(vm, "rm -rf damaged; mkdir damaged").await;
    let content: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let good = targz(&[file("first", b"x"), file("second", &content)]);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let mut bad_sum = good.clone();
    let end = bad_sum.len();
    bad_sum[end - 6] ^= 1;
    let plain = archives::tar(&[file("first", b"x"), file("second", &content)]);
    let cut_tar = archives::gzip(&plain[..plain.len() / 2]);
    let mut bad_header = plain.clone();
    bad_header[1024 + 124] = b'z';
    for (what, archive) in [
        ("empty", Vec::new()),
        ("no gzip", b"hello".to_vec()),
        ("plain tar", plain),
        ("cut", good[..good.len() / 2].to_vec()),
        ("cut at the end", good[..good.len() - 1].to_vec()),
        ("flipped", flipped),
        ("bad checksum", bad_sum),
        ("cut tar", cut_tar),
        ("no tar", archives::gzip(b"this is no tar archive")),
        ("bad header", archives::gzip(&bad_header)),
    ] {
        let reply = api.upload(vm, "/workspace/damaged/sub", archive).await;
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        assert_eq!(api.sh(vm, "find damaged | wc -l").await, "1", "{what}");
    }
}

async fn there_are_limits_to_size_and_number(world: &World) {
    let (api, vm) = world.vm().await;
    api.upload(vm, "/workspace/over", vec![0; 10 * 1024 * 1024 + 1]).await.status(413);
    let names: Vec<String> = (0..10_001).map(|n| format!("f/{n}")).collect();
    let entries = |count: usize| names.iter().take(count).map(|name| file(name, b"")).collect::<Vec<_>>();
    let reply = api.upload(vm, "/workspace/over", targz(&entries(10_001))).await;
    assert!(matches!(reply.status, 400 | 413), "{reply:?}");
    assert_eq!(api.sh(vm, "ls over 2>/dev/null | wc -l").await, "0");
    api.upload(vm, "/workspace/many", targz(&entries(10_000))).await.status(204);
    assert_eq!(api.sh(vm, "ls many/f | wc -l; rm -r many").await, "10000");
}

async fn a_bomb_does_no_harm(world: &World) {
    let (api, vm) = world.vm().await;
    let server = world.server().await;
    let bomb = tokio::task::spawn_blocking(|| archives::bomb(10 << 30)).await.expect("a bomb");
    // 10 GiB of zeros are some 10 MiB compressed; what is over the size limit is refused as such.
    let begun = std::time::Instant::now();
    let before = processes::resident_bytes(server.pid());
    let reply = api.upload(vm, "/workspace/bomb", bomb).await;
    assert!(matches!(reply.status, 400 | 413), "{reply:?}");
    let small = tokio::task::spawn_blocking(|| archives::bomb(300 << 20)).await.expect("a bomb");
    api.upload(vm, "/workspace/bomb", small).await.status(400);
    let grown = processes::resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "the server grew by {grown} bytes");
    assert!(begun.elapsed().as_secs() < 30, "it took {:?}", begun.elapsed());
    assert_eq!(api.sh(vm, "ls bomb 2>/dev/null | wc -l").await, "0");
}

async fn an_upload_that_breaks_off_writes_nothing(world: &World) {
    let (api, vm) = world.vm().await;
    let archive = targz(&[file("first", &[7; 500_000])]);
    let head = format!(
        "POST /v1/vms/{vm}/files/upload?dest=/workspace/broken HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\n\
         content-type: application/gzip\r\ncontent-length: {}\r\n\r\n",
        crate::harness::API_KEY,
        archive.len() + 1000
    );
    api.send_and_leave(&[head.as_bytes(), &archive].concat()).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(api.sh(vm, "ls -d broken 2>/dev/null | wc -l").await, "0");
}

//! Images and their uploads.

use std::io::{Cursor, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Body, Method};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;

use crate::test_app::{TestApp, answer};

/// The least that counts as a kernel.
fn kernel() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(5000, 7);
    elf[16..20].copy_from_slice(&[2, 0, 62, 0]);
    elf
}

/// The least that counts as an ext4 file system: a superblock that claims 64 KiB.
fn rootfs() -> Vec<u8> {
    let mut image = vec![0; 64 * 1024];
    image[1024 + 4] = 64;
    image[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    image
}

fn cpio(entries: &[(&str, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, mode) in entries.iter().chain([&("TRAILER!!!", 0)]) {
        write!(out, "070701{:08x}{mode:08x}{}{:08x}00000000{name}\0", 0, "00000000".repeat(9), name.len() + 1).unwrap();
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn bundle(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

async fn make(test: &TestApp) -> String {
    let body = json!({ "name": "mine", "description": "d" });
    let (status, image) = answer(test.request(Method::POST, "/v1/images").json(&body)).await;
    assert_eq!(status, 201);
    image["id"].as_str().unwrap().to_owned()
}

async fn put(test: &TestApp, id: &str, what: &str, body: impl Into<Body>) -> (u16, Value) {
    let (status, body) = answer(test.request(Method::PUT, &format!("/v1/images/{id}/{what}")).body(body)).await;
    (status.as_u16(), body)
}

fn stored(test: &TestApp, id: &str, what: &str) -> PathBuf {
    test.dir.path().join("images").join(id).join(what)
}

fn leftovers(test: &TestApp) -> usize {
    std::fs::read_dir(test.dir.path().join("tmp")).unwrap().count()
}

#[tokio::test]
async fn an_image_is_made_filled_made_default_and_deleted() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    let (_, image) = test.get(&format!("/v1/images/{id}")).await;
    assert!(id.starts_with("img-") && image["isDefault"] == false && image.get("kernelFilename").is_none(), "{image}");
    assert_eq!(put(&test, &id, "kernel", kernel()).await.0, 204);
    assert_eq!(put(&test, &id, "rootfs", rootfs()).await.0, 204);
    let modules = cpio(&[("modules", 0o040_755), ("modules/virtio.ko", 0o100_644), ("modules/order", 0o100_644)]);
    assert_eq!(put(&test, &id, "modules", modules).await.0, 204);
    assert_eq!(answer(test.request(Method::POST, &format!("/v1/images/{id}/set-default"))).await.0, 204);

    let (_, list) = test.get("/v1/images").await;
    assert_eq!(list[0]["baseRootfsBytes"], 64 * 1024);
    assert_eq!(
        (&list[0]["isDefault"], &list[0]["name"], &list[0]["description"]),
        (&json!(true), &json!("mine"), &json!("d"))
    );
    assert!(list[0]["kernelUploadedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(list[0]["checksums"]["kernel"].as_str().unwrap().len(), 64);
    assert_eq!(std::fs::read(stored(&test, &id, "kernel")).unwrap(), kernel());
    let mode = std::os::unix::fs::PermissionsExt::mode(&stored(&test, &id, "rootfs").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644, "VM processes have users of their own");

    let files = test.app.images.resolve(None).await.unwrap();
    assert_eq!((files.id.as_str(), files.kernel.as_path()), (id.as_str(), stored(&test, &id, "kernel").as_path()));
    let delete = || answer(test.request(Method::DELETE, &format!("/v1/images/{id}")));
    assert_eq!(delete().await.0, 409, "somebody is about to use it");
    drop(files);
    assert_eq!(delete().await.0, 204);
    assert_eq!(delete().await.0, 404);
    assert!(!stored(&test, &id, "kernel").exists());
    let (_, activity) = test.get("/v1/admin/activity").await;
    let types: Vec<_> = activity.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    for kind in
        ["image.created", "image.kernel_uploaded", "image.rootfs_uploaded", "image.default_set", "image.deleted"]
    {
        assert!(types.contains(&kind), "{kind} is not among {types:?}");
    }
}

#[tokio::test]
async fn unknown_images_are_404_and_unusable_ones_say_why() {
    let test = TestApp::start().await;
    for what in ["kernel", "rootfs", "modules", "bundle"] {
        assert_eq!(put(&test, "img-none", what, kernel()).await.0, 404, "{what}");
    }
    assert_eq!(answer(test.request(Method::POST, "/v1/images/img-none/set-default")).await.0, 404);
    for id in ["..", "%2e%2e%2f", "%00", "a%0ab", "%F0%9F%A6%80"] {
        assert_ne!(put(&test, id, "kernel", kernel()).await.0, 204, "{id}");
    }
    let explain = async |id: Option<&str>| test.app.images.resolve(id).await.unwrap_err().to_string();
    assert!(explain(None).await.contains("no default image"));
    assert!(explain(Some("img-none")).await.contains("img-none"));
    let id = make(&test).await;
    assert!(explain(Some(&id)).await.contains("no kernel"));
    put(&test, &id, "kernel", kernel()).await;
    assert!(explain(Some(&id)).await.contains("no rootfs"));
}

#[tokio::test]
async fn a_bad_upload_leaves_the_image_as_it_was() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    put(&test, &id, "kernel", kernel()).await;
    put(&test, &id, "rootfs", rootfs()).await;
    let (_, before) = test.get(&format!("/v1/images/{id}")).await;
    let cut_off = rootfs()[..60 * 1024].to_vec();
    for (what, body) in [
        ("kernel", b"MZ".to_vec()),
        ("kernel", Vec::new()),
        ("rootfs", kernel()),
        ("rootfs", cut_off),
        ("modules", kernel()),
        ("modules", cpio(&[("init", 0o100_755)])),
        ("modules", cpio(&[("modules/x", 0o120_777)])),
        ("bundle", b"PK\x03\x04 nonsense".to_vec()),
        ("bundle", bundle(&[("readme", b"hello")])),
        ("bundle", bundle(&[("a/vmlinux", &kernel()), ("b/vmlinux", &kernel())])),
        ("bundle", bundle(&[("vmlinux", &kernel()), ("rootfs.ext4", b"not ext4")])),
    ] {
        let (status, body) = put(&test, &id, what, body).await;
        assert_eq!(status, 400, "{what}: {body}");
    }
    // A client that goes away in the middle.
    let chunks = futures_util::stream::iter([Ok(kernel()), Err(std::io::Error::other("gone"))]);
    let broken = test.request(Method::PUT, &format!("/v1/images/{id}/kernel")).body(Body::wrap_stream(chunks));
    assert!(broken.send().await.is_err());
    let (_, after) = test.get(&format!("/v1/images/{id}")).await;
    assert_eq!(before, after);
    tokio::time::timeout(Duration::from_secs(5), async {
        while leftovers(&test) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("nothing is left in the directory for unfinished things");
}

#[tokio::test]
async fn a_bundle_brings_its_files_at_any_depth() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    let modules = cpio(&[("modules", 0o040_755)]);
    let zip = bundle(&[
        ("__MACOSX/out/vmlinux", b"shadow"),
        ("out/readme", b"x"),
        ("out/x/vmlinux", &kernel()),
        ("rootfs.ext4", &rootfs()),
        ("out/modules.cpio", &modules),
    ]);
    assert_eq!(put(&test, &id, "bundle", zip).await.0, 204);
    assert_eq!(std::fs::read(stored(&test, &id, "kernel")).unwrap(), kernel());
    assert_eq!(std::fs::read(stored(&test, &id, "rootfs")).unwrap(), rootfs());
    assert_eq!(std::fs::read(stored(&test, &id, "modules")).unwrap(), modules);
}

#[tokio::test]
async fn a_zip_with_endless_entries_is_refused() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    let names: Vec<_> = (0..60_000).map(|n| format!("{n:0100}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let (status, body) = put(&test, &id, "bundle", bundle(&entries)).await;
    assert_eq!(status, 400, "{body}");
}

#[tokio::test]
async fn an_image_given_in_place_is_the_default_and_stays_as_it_is() {
    let files = tempfile::tempdir().unwrap();
    let (vmlinux, ext4) = (files.path().join("vmlinux"), files.path().join("rootfs.ext4"));
    std::fs::write(&vmlinux, kernel()).unwrap();
    std::fs::write(&ext4, rootfs()).unwrap();
    let flags = ["--kernel-path", vmlinux.to_str().unwrap(), "--base-rootfs-path", ext4.to_str().unwrap()];
    let test = TestApp::with(&flags).await;
    let (_, list) = test.get("/v1/images").await;
    let id = list[0]["id"].as_str().unwrap();
    assert_eq!(list[0]["isDefault"], true);
    let used = test.app.images.resolve(None).await.unwrap();
    assert_eq!((used.kernel.as_path(), used.rootfs.as_path()), (vmlinux.as_path(), ext4.as_path()));
    assert_eq!(put(&test, id, "kernel", kernel()).await.0, 409);
    assert_eq!(answer(test.request(Method::DELETE, &format!("/v1/images/{id}"))).await.0, 409);
    assert_eq!(test.get("/v1/admin/overview").await.1["counts"]["templates"], 1);
}

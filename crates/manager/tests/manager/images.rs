//! Images and their uploads.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rds_manager::images::FileKind;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, Executor as _};
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

fn image_dir(test: &TestApp, id: &str) -> PathBuf {
    test.dir.path().join("images").join(id)
}

/// Where a file of an image lies now.
async fn stored(test: &TestApp, id: &str, kind: FileKind) -> PathBuf {
    test.app.images.get(id).await.unwrap().file(kind).expect("it is uploaded").path.clone()
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn leftovers(test: &TestApp) -> usize {
    names_in(&test.dir.path().join("images/.tmp")).len()
}

/// A client sees only what is true.
async fn assert_checksums(test: &TestApp, id: &str) {
    for file in test.app.images.get(id).await.unwrap().files {
        assert_eq!(file.sha256, Some(sha256(&std::fs::read(&file.path).unwrap())), "{}", file.kind);
    }
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

async fn eventually(what: &str, happens: impl Fn() -> bool) {
    let limit = Duration::from_secs(5);
    let wait = async {
        while !happens() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| panic!("{what}"));
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
    let stored_kernel = stored(&test, &id, FileKind::Kernel).await;
    assert_eq!(std::fs::read(&stored_kernel).unwrap(), kernel());
    let rootfs = stored(&test, &id, FileKind::Rootfs).await.metadata().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&rootfs.permissions());
    assert_eq!(mode & 0o777, 0o644, "VM processes have users of their own");

    let files = test.app.images.resolve(None).await.unwrap();
    assert_eq!((files.id.as_str(), &files.kernel), (id.as_str(), &stored_kernel));
    let delete = || answer(test.request(Method::DELETE, &format!("/v1/images/{id}")));
    assert_eq!(delete().await.0, 409, "somebody is about to use it");
    drop(files);
    assert_eq!(delete().await.0, 204);
    assert_eq!(delete().await.0, 404);
    assert!(!image_dir(&test, &id).exists());
    let (_, activity) = test.get("/v1/admin/activity").await;
    let types: Vec<_> = activity.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    for kind in
        ["image.created", "image.kernel_uploaded", "image.rootfs_uploaded", "image.default_set", "image.deleted"]
    {
        assert!(types.contains(&kind), "{kind} is not among {types:?}");
    }
}

#[tokio::test]
async fn a_deletion_whose_client_has_gone_comes_to_its_end() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    assert_eq!(put(&test, &id, "kernel", kernel()).await.0, 204);
    assert!(test.app.images.delete(&id).now_or_never().is_none(), "it takes a while");
    let deleted = async || {
        let (_, activity) = test.get("/v1/admin/activity").await;
        activity.as_array().unwrap().iter().any(|event| event["type"] == "image.deleted")
    };
    let limit = Instant::now() + Duration::from_secs(5);
    while !deleted().await {
        assert!(Instant::now() < limit, "it was not told of");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(test.get(&format!("/v1/images/{id}")).await.0, 404);
    assert!(!image_dir(&test, &id).exists());
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
        ("modules", [cpio(&[("modules", 0o040_755)]), cpio(&[("init", 0o100_755)])].concat()),
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
    eventually("nothing is left in the directory for unfinished things", || leftovers(&test) == 0).await;
    assert_eq!(names_in(&image_dir(&test, &id)).len(), 2);
}

#[tokio::test]
async fn images_may_lie_on_another_file_system() {
    // That of most hosts' shared memory; elsewhere this is one more ordinary upload.
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let test = TestApp::with(&["--images-dir", dir.path().to_str().unwrap()]).await;
    let id = make(&test).await;
    assert_eq!(put(&test, &id, "kernel", kernel()).await.0, 204);
    let zip = bundle(&[("vmlinux", &kernel()), ("rootfs.ext4", &rootfs())]);
    assert_eq!(put(&test, &id, "bundle", zip).await.0, 204);
    assert_eq!(std::fs::read(stored(&test, &id, FileKind::Rootfs).await).unwrap(), rootfs());
}

#[tokio::test]
async fn a_bundle_that_cannot_be_put_in_place_leaves_the_image_as_it_was() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    assert_eq!(put(&test, &id, "kernel", kernel()).await.0, 204);
    let (_, before) = test.get(&format!("/v1/images/{id}")).await;
    let other = [kernel(), b"other".to_vec()].concat();
    let zip = || bundle(&[("vmlinux", &other), ("rootfs.ext4", &rootfs())]);
    let database = format!("sqlite://{}", test.dir.path().join("manager.db").display());
    let mut database = sqlx::AnyConnection::connect(&database).await.unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON image_files WHEN NEW.kind = 'rootfs'
                  BEGIN SELECT RAISE(ABORT, 'no'); END";
    database.execute(refuse).await.unwrap();
    assert_eq!(put(&test, &id, "bundle", zip()).await.0, 500);
    assert_eq!(test.get(&format!("/v1/images/{id}")).await.1, before);
    assert_checksums(&test, &id).await;
    assert_eq!(std::fs::read(stored(&test, &id, FileKind::Kernel).await).unwrap(), kernel());
    assert_eq!(names_in(&image_dir(&test, &id)).len(), 1, "what no row names is gone");
    database.execute("DROP TRIGGER refuse").await.unwrap();
    assert_eq!(put(&test, &id, "bundle", zip()).await.0, 204);
    assert_checksums(&test, &id).await;
    assert_eq!(names_in(&image_dir(&test, &id)).len(), 2);
}

#[tokio::test]
async fn files_that_somebody_is_about_to_open_stay_as_they_are() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    let zip = bundle(&[("vmlinux", &kernel()), ("rootfs.ext4", &rootfs())]);
    assert_eq!(put(&test, &id, "bundle", zip).await.0, 204);
    let before = test.app.images.resolve(Some(&id)).await.unwrap();
    let other = ([kernel(), b"k".to_vec()].concat(), [rootfs(), b"r".to_vec()].concat());
    let zip = bundle(&[("vmlinux", &other.0), ("rootfs.ext4", &other.1)]);
    assert_eq!(put(&test, &id, "bundle", zip).await.0, 204);
    let content = |path: &Path| std::fs::read(path).unwrap();
    assert_eq!((content(&before.kernel), content(&before.rootfs)), (kernel(), rootfs()));
    let after = test.app.images.resolve(Some(&id)).await.unwrap();
    assert_eq!((content(&after.kernel), content(&after.rootfs)), other);
    drop((before, after));
    eventually("the files before are removed", || names_in(&image_dir(&test, &id)).len() == 2).await;
    assert_checksums(&test, &id).await;
}

#[tokio::test]
async fn a_modules_archive_is_no_larger_than_what_a_guest_is_given() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    let archive = [cpio(&[("modules", 0o040_755)]), vec![0; 64 << 20]].concat();
    let zip = bundle(&[("modules.cpio", &archive)]);
    assert_eq!(put(&test, &id, "modules", archive).await.0, 413);
    assert_eq!(put(&test, &id, "bundle", zip).await.0, 413);
}

#[tokio::test]
async fn a_start_removes_what_belongs_to_no_image() {
    let test = TestApp::start().await;
    let id = make(&test).await;
    assert_eq!(put(&test, &id, "kernel", kernel()).await.0, 204);
    let images = test.dir.path().join("images");
    let orphan = images.join("img-0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e");
    for dir in [&orphan, &images.join("img-mine"), &images.join(".tmp/x")] {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("kernel"), kernel()).unwrap();
    }
    std::fs::write(images.join(&id).join("rootfs"), rootfs()).unwrap();
    let test = test.restart().await;
    assert_checksums(&test, &id).await;
    assert_eq!(names_in(&images.join(&id)).len(), 1);
    assert!(!orphan.exists() && leftovers(&test) == 0);
    assert!(images.join("img-mine/kernel").exists(), "what is not ours stays");
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
    for (kind, content) in [(FileKind::Kernel, kernel()), (FileKind::Rootfs, rootfs()), (FileKind::Modules, modules)] {
        assert_eq!(std::fs::read(stored(&test, &id, kind).await).unwrap(), content);
    }
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

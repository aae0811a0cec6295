//! `/v1/images`: what VMs are made from.

use std::path::Path;

use reqwest::{Body, Method};
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::harness::{Api, Prerequisites, Reply, TestServer, World, archives, cases, processes};

cases![
    an_image_is_made_filled_used_and_removed,
    senseless_images_are_refused,
    what_is_no_kernel_or_file_system_is_refused,
    an_upload_that_breaks_off_changes_nothing,
    a_bundle_brings_both,
    a_large_upload_takes_little_memory,
];

pub(crate) async fn put_file(api: &Api, id: &str, kind: &str, file: &Path) -> Reply {
    let size = std::fs::metadata(file).expect("the file").len();
    let body = Body::wrap_stream(ReaderStream::with_capacity(tokio::fs::File::open(file).await.expect("it"), 1 << 18));
    let request = api
        .request(Method::PUT, &format!("/v1/images/{id}/{kind}"))
        .header("content-type", "application/octet-stream")
        .header("content-length", size);
    api.send(request.body(body)).await
}

async fn put_bytes(api: &Api, id: &str, kind: &str, content: Vec<u8>) -> Reply {
    let request = api.request(Method::PUT, &format!("/v1/images/{id}/{kind}"));
    api.send(request.header("content-type", "application/octet-stream").body(content)).await
}

async fn new_image(api: &Api, name: &str) -> String {
    let image = api.post("/v1/images", &json!({"name": name, "description": "d"})).await.status(201).json();
    assert_eq!(
        (&image["name"], &image["description"], &image["isDefault"]),
        (&json!(name), &json!("d"), &json!(false))
    );
    let id = image["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("img-"), "{id}");
    id
}

async fn an_image_is_made_filled_used_and_removed(world: &World) {
    let server = TestServer::without_image(&world.found, &[]).await;
    let api = server.api();
    let id = new_image(&api, "uploaded").await;
    let path = format!("/v1/images/{id}");
    // Not complete yet.
    api.post("/v1/vms", &json!({"cpu": 1, "memMb": 256, "allowIps": [], "imageId": id})).await.status(400);
    for (kind, file) in world.found.image_files() {
        put_file(&api, &id, kind, file).await.status(204);
    }
    api.poke(&format!("{path}/set-default")).await.status(204);
    let image = api.get(&path).await.ok().json();
    assert_eq!(image["isDefault"], true);
    assert!(image["kernelUploadedAt"].is_string() && image["rootfsUploadedAt"].is_string(), "{image}");
    let bytes = std::fs::metadata(&world.found.rootfs).expect("the file").len();
    assert_eq!(image["baseRootfsBytes"], json!(bytes));

    let vm = crate::harness::create(&api, json!({})).await;
    assert_eq!(api.get(&format!("/v1/vms/{vm}")).await.ok().json()["imageId"], json!(id));
    assert_eq!(api.sh(&vm, "echo it runs").await, "it runs");
    api.delete(&path).await.status(409);
    api.poke(&format!("/v1/vms/{vm}/stop")).await.status(204);
    api.delete(&path).await.status(409);
    api.poke(&format!("/v1/vms/{vm}/start")).await.status(204);
    api.delete(&format!("/v1/vms/{vm}")).await.status(204);
    api.delete(&path).await.status(204);
    api.get(&path).await.status(404);
    assert_eq!(api.get("/v1/images").await.ok().json(), json!([]));
    assert!(!server.root().join("images").join(&id).exists(), "its files are left");
    server.assert_no_trace().await;
}

async fn senseless_images_are_refused(world: &World) {
    let api = world.api().await;
    for body in [json!({}), json!({"name": 1, "description": "d"}), json!({"name": "", "description": "d"})] {
        api.post("/v1/images", &body).await.status(400);
    }
    for id in ["img-none", "..%2f..", "%00", "img-0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e"] {
        assert_eq!(api.get(&format!("/v1/images/{id}")).await.status, 404, "{id}");
        assert_eq!(api.delete(&format!("/v1/images/{id}")).await.status, 404, "{id}");
        assert_eq!(api.poke(&format!("/v1/images/{id}/set-default")).await.status, 404, "{id}");
        assert_eq!(put_bytes(&api, id, "kernel", b"x".to_vec()).await.status, 404, "{id}");
    }
}

async fn what_is_no_kernel_or_file_system_is_refused(world: &World) {
    let api = world.api().await;
    let id = new_image(&api, "rubbish").await;
    for kind in ["kernel", "rootfs", "modules", "bundle"] {
        for content in [Vec::new(), b"rubbish".to_vec(), vec![0; 100_000], archives::gzip(b"x")] {
            let reply = put_bytes(&api, &id, kind, content).await;
            assert_eq!(reply.status, 400, "{kind}: {reply:?}");
        }
    }
    // A kernel would go on with the second archive, where anything could be.
    if let Some(modules) = &world.found.modules {
        let twice = std::fs::read(modules).expect("the file").repeat(2);
        let reply = put_bytes(&api, &id, "modules", twice).await;
        assert!(reply.status(400).message().contains("behind its end"));
    }
    let image = api.get(&format!("/v1/images/{id}")).await.ok().json();
    assert!(image.get("kernelUploadedAt").is_none() && image.get("rootfsUploadedAt").is_none(), "{image}");
    api.delete(&format!("/v1/images/{id}")).await.status(204);
}

async fn an_upload_that_breaks_off_changes_nothing(world: &World) {
    let server = world.server().await;
    let api = server.api();
    let id = new_image(&api, "broken-off").await;
    put_file(&api, &id, "kernel", &world.found.kernel).await.status(204);
    let before = api.get(&format!("/v1/images/{id}")).await.ok().json();
    let head = format!(
        "PUT /v1/images/{id}/kernel HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\n\
         content-type: application/octet-stream\r\ncontent-length: 5000000\r\n\r\n\x7fELF",
        crate::harness::API_KEY
    );
    api.send_and_leave(&[head.as_bytes(), &[0; 100_000]].concat()).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(api.get(&format!("/v1/images/{id}")).await.ok().json(), before);
    api.delete(&format!("/v1/images/{id}")).await.status(204);
}

async fn a_bundle_brings_both(world: &World) {
    let api = world.api().await;
    let id = new_image(&api, "bundle").await;
    let dir = tempfile::tempdir().expect("a directory");
    let zip = dir.path().join("bundle.zip");
    let (found, to) = (world.found.clone(), zip.clone());
    tokio::task::spawn_blocking(move || pack(&found, &to)).await.expect("it is packed");
    put_file(&api, &id, "bundle", &zip).await.status(204);
    let image = api.get(&format!("/v1/images/{id}")).await.ok().json();
    assert!(image["kernelUploadedAt"].is_string() && image["rootfsUploadedAt"].is_string(), "{image}");
    api.delete(&format!("/v1/images/{id}")).await.status(204);
}

fn pack(found: &Prerequisites, to: &Path) {
    let options = zip::write::SimpleFileOptions::default().compression_level(Some(1));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(to).expect("a file"));
    for (file, name) in [(&found.kernel, "some/where/vmlinux"), (&found.rootfs, "some/where/rootfs.ext4")] {
        zip.start_file(name, options).expect("an entry");
        let mut content = std::fs::File::open(file).expect("the image");
        std::io::copy(&mut content, &mut zip).expect("it is packed");
    }
    zip.finish().expect("it is packed");
}

async fn a_large_upload_takes_little_memory(world: &World) {
    let server = TestServer::without_image(&world.found, &[]).await;
    let api = server.api();
    let id = new_image(&api, "large").await;
    let upload = put_file(&api, &id, "rootfs", &world.found.rootfs);
    let mut most = 0;
    let watch = async {
        loop {
            most = most.max(processes::resident_bytes(server.pid()));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        reply = upload => { reply.status(204); }
        () = watch => {}
    }
    assert!(most < 32 << 20, "{most} bytes resident");
}

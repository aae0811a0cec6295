//! Starting and ending.

use std::sync::Arc;
use std::time::Duration;

use rds_manager::{App, Error};
use reqwest::{Body, Method};
use serde_json::json;
use tokio::net::TcpStream;

use crate::no_hypervisor::NoHypervisor;
use crate::test_app::{TestApp, answer, config};

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_end() {
    let test = TestApp::start().await;
    let address = test.address;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<&str>>(1);
    let body = Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let request = tokio::spawn(answer(test.request(Method::POST, "/v1/images").body(body)));
    sender.send(Ok("{\"name\":")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stop = tokio::spawn(test.stop());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody else is let in");
    sender.send(Ok("\"late\"}")).await.unwrap();
    drop(sender);
    assert_eq!(request.await.unwrap().0, 201);
    stop.await.unwrap();
}

#[tokio::test]
async fn one_storage_root_has_one_server_and_keeps_what_it_had() {
    let test = TestApp::start().await;
    answer(test.request(Method::POST, "/v1/images").json(&json!({ "name": "kept" }))).await;
    let second = App::start_with(config(&test.dir, &[]), Arc::new(NoHypervisor::new())).await;
    assert!(matches!(second, Err(Error::Conflict(why)) if why.contains("STORAGE_ROOT")));
    std::fs::write(test.dir.path().join("tmp/unfinished"), "x").unwrap();

    let app = Arc::clone(&test.app);
    let dir = test.stop().await;
    drop(app);
    let again = App::start_with(config(&dir, &[]), Arc::new(NoHypervisor::new())).await.unwrap();
    assert_eq!(again.images.list().await.unwrap()[0].name, "kept");
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "what was unfinished is gone");
}

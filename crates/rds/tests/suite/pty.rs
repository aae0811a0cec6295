//! `/v1/vms/{id}/pty`: a terminal over a WebSocket.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::{API_KEY, TestServer, World, cases};

cases![
    keys_go_in_and_the_screen_comes_out,
    a_terminal_has_a_size_that_changes,
    a_command_ends_with_its_exit_code,
    a_signal_reaches_the_program,
    a_signal_reaches_what_a_shell_runs,
    a_signal_overtakes_keys_that_nobody_reads,
    a_terminal_needs_a_key_and_a_vm,
    leaving_ends_what_runs,
];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(server: &TestServer, vm: &str, query: &str, key: Option<&str>) -> Result<Socket, Error> {
    let url = format!("{}/v1/vms/{vm}/pty{query}", server.url().replace("http://", "ws://"));
    let mut request = url.into_client_request().expect("a URL");
    if let Some(key) = key {
        request.headers_mut().insert("x-api-key", key.parse().expect("a header"));
    }
    Ok(connect_async(request).await?.0)
}

/// Reads the screen until it shows `wanted`, or until the end; the screen and the last message.
async fn read_until(socket: &mut Socket, wanted: &str) -> (String, Option<Value>) {
    let (mut screen, mut last) = (String::new(), None);
    let reading = async {
        while let Some(message) = socket.next().await {
            match message.expect("a message") {
                Message::Binary(bytes) => screen.push_str(&String::from_utf8_lossy(&bytes)),
                Message::Text(text) => last = Some(serde_json::from_str(&text).expect("JSON")),
                _ => {}
            }
            if !wanted.is_empty() && screen.contains(wanted) {
                break;
            }
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(read.is_ok(), "no `{wanted}` on the screen: {screen}");
    (screen, last)
}

async fn keys_go_in_and_the_screen_comes_out(world: &World) {
    let (_, vm) = world.vm().await;
    let mut socket = open(world.server().await, vm, "", Some(API_KEY)).await.expect("a terminal");
    socket.send(Message::binary(&b"echo $((40+2))-answer; tty; id -u\n"[..])).await.expect("keys");
    let (screen, _) = read_until(&mut socket, "42-answer").await;
    assert!(!screen.contains("not a tty"), "{screen}");
    socket.send(Message::binary(&b"exit 5\n"[..])).await.expect("keys");
    let (_, last) = read_until(&mut socket, "").await;
    assert_eq!(last, Some(json!({"type": "exit", "exitCode": 5})));
}

async fn a_terminal_has_a_size_that_changes(world: &World) {
    let (_, vm) = world.vm().await;
    let mut socket = open(world.server().await, vm, "?cols=100&rows=30", Some(API_KEY)).await.expect("a terminal");
    socket.send(Message::binary(&b"stty size\n"[..])).await.expect("keys");
    read_until(&mut socket, "30 100").await;
    let resize = json!({"type": "resize", "cols": 120, "rows": 40}).to_string();
    socket.send(Message::text(resize)).await.expect("a resize");
    socket.send(Message::binary(&b"stty size\n"[..])).await.expect("keys");
    read_until(&mut socket, "40 120").await;
}

async fn a_command_ends_with_its_exit_code(world: &World) {
    let (_, vm) = world.vm().await;
    let query = "?cmd=test%20-t%200%20%26%26%20exit%209";
    let mut socket = open(world.server().await, vm, query, Some(API_KEY)).await.expect("a terminal");
    let (_, last) = read_until(&mut socket, "").await;
    assert_eq!(last, Some(json!({"type": "exit", "exitCode": 9})));
}

async fn a_signal_reaches_the_program(world: &World) {
    let (_, vm) = world.vm().await;
    let query = "?cmd=trap%20%22echo%20caught%3B%20exit%203%22%20INT%3B%20echo%20ready%3B%20while%20%3A%3B%20do%20sleep%200.1%3B%20done";
    let mut socket = open(world.server().await, vm, query, Some(API_KEY)).await.expect("a terminal");
    read_until(&mut socket, "ready").await;
    socket.send(Message::text(json!({"type": "signal", "signal": 2}).to_string())).await.expect("a signal");
    let (screen, last) = read_until(&mut socket, "").await;
    assert!(screen.contains("caught"), "{screen}");
    assert_eq!(last, Some(json!({"type": "exit", "exitCode": 3})));
}

async fn a_signal_reaches_what_a_shell_runs(world: &World) {
    let (_, vm) = world.vm().await;
    let mut socket = open(world.server().await, vm, "", Some(API_KEY)).await.expect("a terminal");
    socket.send(Message::binary(&b"echo rea''dy; sleep 1000; echo ended-$?\n"[..])).await.expect("keys");
    read_until(&mut socket, "ready").await;
    // The shell has to hand the terminal over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    socket.send(Message::text(json!({"type": "signal", "signal": 15}).to_string())).await.expect("a signal");
    read_until(&mut socket, "ended-143").await;
    socket.send(Message::binary(&b"exit 5\n"[..])).await.expect("keys");
    let (_, last) = read_until(&mut socket, "").await;
    assert_eq!(last, Some(json!({"type": "exit", "exitCode": 5})));
}

async fn a_signal_overtakes_keys_that_nobody_reads(world: &World) {
    let (_, vm) = world.vm().await;
    let query = "?cmd=stty%20-echo%3B%20trap%20%22echo%20caught%3B%20exit%203%22%20INT%3B%20echo%20ready%3B%20while%20%3A%3B%20do%20sleep%200.1%3B%20done";
    let mut socket = open(world.server().await, vm, query, Some(API_KEY)).await.expect("a terminal");
    read_until(&mut socket, "ready").await;
    // More than the kernel takes for a program that does not read.
    socket.send(Message::binary("x\n".repeat(15_000).into_bytes())).await.expect("keys");
    socket.send(Message::text(json!({"type": "signal", "signal": 2}).to_string())).await.expect("a signal");
    let (screen, last) = read_until(&mut socket, "").await;
    assert!(screen.contains("caught"), "{screen}");
    assert_eq!(last, Some(json!({"type": "exit", "exitCode": 3})));
}

async fn a_terminal_needs_a_key_and_a_vm(world: &World) {
    let (api, vm) = world.vm().await;
    let server = world.server().await;
    let nobody = "0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e";
    for (vm, key, wanted) in [(vm, None, 401), (vm, Some("wrong"), 401), (nobody, Some(API_KEY), 404)] {
        match open(server, vm, "", key).await {
            Err(Error::Http(reply)) => assert_eq!(reply.status().as_u16(), wanted),
            other => panic!("{other:?}"),
        }
    }
    api.get(&format!("/v1/vms/{vm}/pty")).await.status(400);
}

async fn leaving_ends_what_runs(world: &World) {
    let (api, vm) = world.vm().await;
    let mut socket =
        open(world.server().await, vm, "?cmd=echo%20on%3B%20sleep%203333", Some(API_KEY)).await.expect("one");
    read_until(&mut socket, "on").await;
    drop(socket);
    let begun = std::time::Instant::now();
    while api.exec(vm, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 333[3]'").await["stdout"] != "0\n" {
        assert!(begun.elapsed().as_secs() < 10, "it runs on");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

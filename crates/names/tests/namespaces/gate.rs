//! Which connections go through.

use std::time::Duration;

use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::lab::{GATE, GUEST, Lab, at, inside, policy};
use crate::lookups::ask;
use crate::sample::{extension, hello, hello_to, server_names};
use rds_lab::servers;

const API: &str = "203.0.113.10";

async fn look_up(lab: &Lab, name: &'static str) {
    lab.guest.run(async move || ask(name, RecordType::A).await.unwrap()).await;
}

async fn send(lab: &Lab, to: &'static str, bytes: Vec<u8>) -> Option<Vec<u8>> {
    lab.guest.run(async move || exchange(to, vec![bytes]).await).await
}

fn get(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_goes_through_with_an_allowed_name_to_an_open_address() {
    if !inside("gate::tls_goes_through_with_an_allowed_name_to_an_open_address") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let seen = servers::start(&lab.world).await;
    let first = hello_to("api.example");
    assert_eq!(send(&lab, "203.0.113.10:443", first.clone()).await, None, "not looked up yet");
    assert_eq!(seen.count("echo"), 0);
    assert!(lab.was_told(&[API, "no lookup"]));

    look_up(&lab, "api.example.").await;
    assert_eq!(send(&lab, "203.0.113.10:443", first.clone()).await, Some(first.clone()));
    let pieces = first.iter().map(|byte| vec![*byte]).collect();
    let slowly = lab.guest.run(async move || exchange("203.0.113.10:443", pieces).await).await;
    assert_eq!(slowly, Some(first.clone()), "piece by piece");
    let split = hello(&[server_names(&["api.example"])], 9);
    assert_eq!(send(&lab, "203.0.113.10:443", split.clone()).await, Some(split));
    let through = seen.count("echo");

    for (what, bytes) in [
        ("another name", hello_to("other.example")),
        ("no name", hello(&[], 1000)),
        ("a hidden name", hello(&[server_names(&["api.example"]), extension(0xfe0d, &[0; 30])], 1000)),
        ("another protocol", b"SSH-2.0-OpenSSH\r\n".to_vec()),
        ("HTTP", get("api.example")),
    ] {
        assert_eq!(send(&lab, "203.0.113.10:443", bytes).await, None, "{what}");
    }
    assert_eq!(send(&lab, "203.0.113.11:443", first).await, None, "an address that no lookup led to");
    assert_eq!(seen.count("echo"), through, "the world saw none of these");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_checked() {
    if !inside("gate::every_request_is_checked") {
        return;
    }
    let lab = Lab::new(&["api.example", "second.example"]);
    let seen = servers::start(&lab.world).await;
    look_up(&lab, "api.example.").await;
    let answer = |reply: Option<Vec<u8>>| String::from_utf8(reply.unwrap_or_default()).unwrap();
    for host in ["api.example", "API.example:80"] {
        assert!(answer(send(&lab, "203.0.113.10:80", get(host)).await).contains("200 ok"), "{host}");
    }
    let absolute = b"GET http://api.example/x HTTP/1.1\r\nHost: api.example\r\n\r\n".to_vec();
    assert!(answer(send(&lab, "203.0.113.10:80", absolute).await).contains("GET /x HTTP/1.1"));
    let http2 = b"GET / HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    let reply = answer(send(&lab, "203.0.113.10:80", http2.to_vec()).await).to_lowercase();
    assert!(reply.contains("200 ok") && !reply.contains("h2c") && !reply.contains("http2-settings"), "{reply}");

    let requests = seen.count("request");
    for bad in [
        get("other.example"),
        get("203.0.113.10"),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"GET / HTTP/1.0\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: api.example\r\nHost: other.example\r\n\r\n".to_vec(),
        b"GET http://other.example/ HTTP/1.1\r\nHost: api.example\r\n\r\n".to_vec(),
        b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01garbage".to_vec(),
    ] {
        let reply = send(&lab, "203.0.113.10:80", bad.clone()).await;
        let reply = reply.map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(
            reply.as_ref().is_none_or(|text| !text.contains("200 ok")),
            "{:?}: {reply:?}",
            String::from_utf8_lossy(&bad)
        );
    }
    assert_eq!(seen.count("request"), requests, "the world saw none of these");

    let second = [get("api.example"), get("second.example")].concat();
    let reply = lab.guest.run(async move || exchange("203.0.113.10:80", vec![second]).await).await;
    let answers = |bytes| String::from_utf8(bytes).unwrap().matches("200 ok").count();
    assert!(reply.map_or(0, answers) < 2);
    assert_eq!(seen.count("Host: second.example"), 0, "a connection is for one host");
    let smuggled = [
        b"POST / HTTP/1.1\r\nHost: api.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
            .to_vec(),
        get("other.example"),
    ]
    .concat();
    send(&lab, "203.0.113.10:80", smuggled).await;
    assert_eq!(seen.count("other.example"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_and_may_become_a_websocket() {
    if !inside("gate::a_connection_is_kept_and_may_become_a_websocket") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let seen = servers::start(&lab.world).await;
    look_up(&lab, "api.example.").await;
    let reply = lab
        .guest
        .run(async || {
            let mut stream = TcpStream::connect(at("203.0.113.10:80")).await.unwrap();
            let mut buffer = [0; 4096];
            for _ in 0..3 {
                stream.write_all(&get("api.example")).await.unwrap();
                let length = stream.read(&mut buffer).await.unwrap();
                assert!(buffer[..length].starts_with(b"HTTP/1.1 200"));
            }
            let upgrade =
                b"GET /socket HTTP/1.1\r\nHost: api.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(upgrade).await.unwrap();
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(buffer[..length].starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&buffer[..length]));
            stream.write_all(b"anything at all").await.unwrap();
            let length = stream.read(&mut buffer).await.unwrap();
            buffer[..length].to_vec()
        })
        .await;
    assert_eq!(reply, b"anything at all");
    assert_eq!(seen.count("http connection"), 1, "one connection for all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_when_their_name_is_withdrawn() {
    if !inside("gate::connections_end_when_their_name_is_withdrawn") {
        return;
    }
    let lab = Lab::new(&["api.example", "second.example"]);
    let _seen = servers::start(&lab.world).await;
    look_up(&lab, "api.example.").await;
    let (open, opened) = tokio::sync::oneshot::channel();
    let guest = lab.guest.spawn(async move || {
        let mut tls = TcpStream::connect(at("203.0.113.10:443")).await.unwrap();
        let mut http = TcpStream::connect(at("203.0.113.10:80")).await.unwrap();
        let mut buffer = [0; 4096];
        tls.write_all(&hello_to("api.example")).await.unwrap();
        http.write_all(&get("api.example")).await.unwrap();
        assert!(tls.read(&mut buffer).await.unwrap() > 0 && http.read(&mut buffer).await.unwrap() > 0);
        open.send(()).unwrap();
        let limit = Duration::from_secs(5);
        let tls = tokio::time::timeout(limit, tls.read(&mut buffer)).await.unwrap().is_err();
        (tls, tokio::time::timeout(limit, http.read(&mut buffer)).await.unwrap().is_err())
    });
    opened.await.unwrap();
    lab.names.set(GUEST, "vm", policy(&["second.example"]));
    let ends = tokio::task::spawn_blocking(|| guest.join().unwrap()).await.unwrap();
    assert_eq!(ends, (true, true), "both are reset");
    assert_eq!(send(&lab, "203.0.113.10:443", hello_to("second.example")).await, None, "what it opened is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_when_what_opened_their_address_is_withdrawn() {
    if !inside("gate::connections_end_when_what_opened_their_address_is_withdrawn") {
        return;
    }
    let lab = Lab::new(&["api.example", "other.example", "second.example"]);
    let seen = servers::start(&lab.world).await;
    look_up(&lab, "api.example.").await;
    look_up(&lab, "other.example.").await;
    let (open, opened) = tokio::sync::oneshot::channel();
    let (withdraw, withdrawn) = tokio::sync::oneshot::channel();
    // Both name a host that has its addresses elsewhere, and go on all the time.
    let guest = lab.guest.spawn(async move || {
        let mut tls = TcpStream::connect(at("203.0.113.10:443")).await.unwrap();
        let mut http = TcpStream::connect(at("203.0.113.10:80")).await.unwrap();
        let mut buffer = [0; 4096];
        tls.write_all(&hello_to("second.example")).await.unwrap();
        assert!(tls.read(&mut buffer).await.unwrap() > 0);
        http.write_all(&get("second.example")).await.unwrap();
        assert!(http.read(&mut buffer).await.unwrap() > 0);
        open.send(()).unwrap();
        withdrawn.await.unwrap();
        // One of the names that opened it is left.
        http.write_all(&get("second.example")).await.unwrap();
        assert!(http.read(&mut buffer).await.unwrap() > 0);
        open_still(&mut tls).await;
        let limit = Duration::from_secs(5);
        let tls = tokio::time::timeout(limit, tls.read(&mut buffer)).await.unwrap().is_err();
        (tls, tokio::time::timeout(limit, http.read(&mut buffer)).await.unwrap().is_err())
    });
    opened.await.unwrap();
    lab.names.set(GUEST, "vm", policy(&["api.example", "second.example"]));
    let requests = seen.count("request");
    withdraw.send(()).unwrap();
    while seen.count("request") == requests {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    lab.names.set(GUEST, "vm", policy(&["second.example"]));
    let ends = tokio::task::spawn_blocking(|| guest.join().unwrap()).await.unwrap();
    assert_eq!(ends, (true, true), "both are reset");
    assert_eq!(send(&lab, "203.0.113.10:80", get("second.example")).await, None, "it is closed");
}

async fn open_still(stream: &mut TcpStream) {
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_is_no_server_of_its_own() {
    if !inside("gate::the_gate_is_no_server_of_its_own") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let seen = servers::start(&lab.world).await;
    look_up(&lab, "api.example.").await;
    const DIRECT: &str = "172.16.0.1:7443";
    assert!(DIRECT.ends_with(&GATE.to_string()));
    assert_eq!(send(&lab, DIRECT, hello_to("api.example")).await, None);
    // Another VM under the same address has nothing of the one before.
    lab.names.set(GUEST, "another", policy(&["api.example"]));
    assert_eq!(send(&lab, "203.0.113.10:443", hello_to("api.example")).await, None);
    assert!(lab.was_told(&["another: ", "no lookup"]));
    lab.names.remove(GUEST);
    assert_eq!(send(&lab, "203.0.113.10:443", hello_to("api.example")).await, None);
    assert_eq!(seen.count("echo"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_guest_holds_only_so_many_connections() {
    if !inside("gate::one_guest_holds_only_so_many_connections") {
        return;
    }
    let lab = Lab::new(&["api.example"]);
    let _seen = servers::start(&lab.world).await;
    look_up(&lab, "api.example.").await;
    let alive = lab
        .guest
        .run(async || {
            let mut held = Vec::new();
            for _ in 0..300 {
                held.extend(TcpStream::connect(at("203.0.113.10:443")).await);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut alive = 0;
            for stream in &mut held {
                let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut [0; 1])).await;
                alive += u32::from(read.is_err());
            }
            alive
        })
        .await;
    assert!(alive <= 256 && alive > 200, "{alive}");
    assert!(lab.was_told(&["too many at a time"]));
}

/// Sends bytes to an address of the world and returns what comes back within a while; `None` if the connection is reset.
async fn exchange(to: &'static str, parts: Vec<Vec<u8>>) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(at(to)).await.ok()?;
    for part in parts {
        stream.write_all(&part).await.ok()?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut got = Vec::new();
    loop {
        // Busy machines take a while to begin; what has begun comes at once.
        let patience = Duration::from_millis(if got.is_empty() { 5000 } else { 300 });
        match tokio::time::timeout(patience, stream.read_buf(&mut got)).await {
            Ok(Ok(0)) | Err(_) => return Some(got),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return None,
        }
    }
}

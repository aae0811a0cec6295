//! Uploads do not go through memory: the server runs as a process of its own, whose peak the kernel measures.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Client};
use serde_json::json;

use crate::test_app::{KEY, TestApp};

/// What the server may have resident at most while it takes 1 GB, in KiB.
const MAX_RESIDENT_KIB: u64 = 64 * 1024;
const CHUNK: usize = 1024 * 1024;
const CHUNKS: usize = 1000;

/// Set in the process that is the server: the file into which it writes its address.
const SERVER: &str = "RDS_TEST_SERVER_ADDRESS_FILE";

/// No test by itself: it is the server of the test below.
#[tokio::test]
#[ignore = "the server of another test"]
async fn server_process() {
    let Some(file) = std::env::var_os(SERVER) else { return };
    let test = TestApp::start().await;
    fs::write(&file, test.address.to_string()).unwrap();
    while Path::new(&file).exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    test.stop().await;
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_upload_of_1_gb_takes_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("address");
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .args(["memory::server_process", "--exact", "--ignored"])
        .env(SERVER, &file)
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    let address = loop {
        match fs::read_to_string(&file) {
            Ok(address) if !address.is_empty() => break address,
            _ => assert!(Instant::now() < deadline, "the server does not start"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };

    let url = |path: &str| format!("http://{address}/v1/images{path}");
    let client = Client::new();
    let made = client.post(url("")).header("x-api-key", KEY).json(&json!({ "name": "big" })).send().await.unwrap();
    let image: serde_json::Value = made.json().await.unwrap();
    let path = format!("/{}/rootfs", image["id"].as_str().unwrap());
    let reply = client.put(url(&path)).header("x-api-key", KEY).body(one_gb()).send().await.unwrap();
    assert_eq!(reply.status(), 204, "{}", reply.text().await.unwrap());
    let peak = peak_resident_kib(server.0.id());
    eprintln!("peak resident memory of the server: {} MiB", peak / 1024);
    assert!(peak < MAX_RESIDENT_KIB, "{peak} KiB");
}

/// A superblock that claims as many blocks of 1 KiB as there are, then anything.
fn one_gb() -> Body {
    let mut first = vec![7; CHUNK];
    first[1024..2048].fill(0);
    first[1024 + 4..1024 + 8].copy_from_slice(&u32::try_from(CHUNKS * CHUNK / 1024).unwrap().to_le_bytes());
    first[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    let (first, rest) = (Bytes::from(first), Bytes::from(vec![7; CHUNK]));
    let chunks = (0..CHUNKS).map(move |n| Ok::<_, std::io::Error>(if n == 0 { first.clone() } else { rest.clone() }));
    Body::wrap_stream(stream::iter(chunks))
}

/// `VmHWM` of proc_pid_status(5).
fn peak_resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

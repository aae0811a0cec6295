//! The command line against a server that a test plays: what it sends to whom, and how it ends when its output cannot be
//! written.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

const VM: &str = r#"{"id":"a1","state":"RUNNING","cpu":1,"memMb":128,"createdAt":"t"}"#;

/// A server of this machine: its port, and the head of each request that it got.
fn server(answer: impl Fn(&str, TcpStream) + Send + 'static) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (to, heads) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = vec![0; 8192];
            let count = socket.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..count]).to_lowercase();
            answer(head.lines().next().unwrap_or_default(), socket);
            let _ = to.send(head); // not every test wants to know
        }
    });
    (port, heads)
}

fn reply(mut socket: TcpStream, status: &str, body: &str) {
    let length = body.len();
    // One that has enough may be gone.
    let _ = write!(socket, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
}

fn rds(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
    command.args(words).env("RDS_URL", url);
    for unset in ["RDS_API_KEY", "ADMIN_EMAIL", "ADMIN_PASSWORD", "RDS_CONFIG", "STORAGE_ROOT"] {
        command.env_remove(unset);
    }
    command
}

#[test]
fn kept_secrets_are_sent_to_this_machine_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("api-key"), "kept-key").unwrap();
    fs::write(root.path().join("admin-password"), "kept-password").unwrap();
    let (port, heads) = server(|_, socket| reply(socket, "401 Unauthorized", "{}"));
    // The second address leads here, too, but nothing in it says so.
    for (host, sent) in [("127.0.0.1", true), ("0.0.0.0", false)] {
        let url = format!("http://{host}:{port}");
        let run = |words: &[&str]| rds(&url, words).env("STORAGE_ROOT", root.path()).output().unwrap().status.code();
        assert_eq!(run(&["vm", "ls"]), Some(4));
        assert_eq!(heads.recv().unwrap().contains("x-api-key: kept-key"), sent, "{host}");
        assert_eq!(run(&["api-key", "ls"]), Some(if sent { 4 } else { 2 }), "{host}");
        assert_eq!(heads.try_recv().is_ok(), sent, "{host}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let (port, _heads) = server(|_, socket| reply(socket, "201 Created", VM));
    let url = format!("http://127.0.0.1:{port}");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = rds(&url, &["vm", "create"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("rds: standard output: No space left"), "{said}");
}

#[test]
fn a_command_whose_reader_has_gone_ends_quietly_and_lets_go_of_the_program() {
    let (gone, seen) = mpsc::channel();
    let (port, _heads) = server(move |asked, mut socket| {
        if asked.starts_with("get /v1/vms ") {
            return reply(socket, "200 OK", &format!("[{VM}]"));
        }
        write!(socket, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").unwrap();
        let piece = "event: stdout\ndata: \"y\\n\"\n\n";
        while socket.write_all(piece.as_bytes()).is_ok() {}
        gone.send(()).unwrap();
    });
    let url = format!("http://127.0.0.1:{port}");
    for words in [&["exec", "a1", "--", "yes"][..], &["audit", "export"]] {
        let mut command = rds(&url, words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 2];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap(); // and closes it
        seen.recv_timeout(Duration::from_secs(20)).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]), "{words:?}");
    }
}

#[test]
fn words_of_a_guest_do_not_reach_the_terminal_as_they_are() {
    let (port, _heads) =
        server(|_, socket| reply(socket, "400 Bad Request", "{\"message\":\"a\\u001b[2J\\nrds: b\\u009b\"}"));
    let output = rds(&format!("http://127.0.0.1:{port}"), &["vm", "ls"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "rds: a\\u{1b}[2J\n     rds: b\\u{9b}\n");
}

#[test]
fn what_was_removed_before_a_failure_is_told() {
    let (port, _heads) = server(|asked, socket| {
        if asked.contains("/s2 ") { reply(socket, "404 Not Found", "{}") } else { reply(socket, "204 No Content", "") }
    });
    let words = ["--json", "snapshot", "rm", "s1", "s2", "s3"];
    let output = rds(&format!("http://127.0.0.1:{port}"), &words).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["removed"], serde_json::json!(["s1"]));
}

/// A server with one file, of which `sent` bytes come.
fn with_file(sent: usize) -> u16 {
    server(move |asked, mut socket| {
        if asked.contains("/stat?") {
            return reply(socket, "200 OK", r#"{"type":"file","mode":420}"#);
        }
        if asked.starts_with("get /v1/vms ") {
            return reply(socket, "200 OK", &format!("[{VM}]"));
        }
        let _ = write!(socket, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "n".repeat(sent));
    })
    .0
}

#[test]
fn a_file_that_is_there_stays_until_the_new_one_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("f"), dir.path().join("link"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let copy = |port: u16, to: &str| {
        let url = format!("http://127.0.0.1:{port}");
        rds(&url, &["cp", "a1:/workspace/f", to]).current_dir(dir.path()).output().unwrap()
    };
    fs::write(&file, "old").unwrap();
    let broken = copy(with_file(1), "f");
    assert_eq!((broken.status.code(), fs::read(&file).unwrap().as_slice()), (Some(1), &b"old"[..]), "{broken:?}");
    let whole = copy(with_file(2), "link");
    assert_eq!((whole.status.code(), fs::read(&file).unwrap().as_slice()), (Some(0), &b"nn"[..]), "{whole:?}");
    assert!(link.is_symlink());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    assert_eq!(copy(with_file(2), "/dev/stdout").stdout, b"nn");
}

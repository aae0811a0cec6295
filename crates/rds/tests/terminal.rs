//! `rds exec -t` against a server that a test plays: what it sends, and how it ends.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept};

const VM: &str = r#"[{"id":"a1","state":"RUNNING","cpu":1,"memMb":128,"createdAt":"t"}]"#;

/// Runs `rds exec -t a1 -- cat` with a server that has one VM and plays its terminal like this.
fn terminal(play: impl FnOnce(&mut WebSocket<TcpStream>) + Send + 'static) -> Child {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let _ = socket.read(&mut [0; 8192]).unwrap();
        write!(socket, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{VM}", VM.len()).unwrap();
        drop(socket);
        let (socket, _) = listener.accept().unwrap();
        play(&mut accept(socket).unwrap());
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_rds"));
    command.args(["exec", "-t", "a1", "--", "cat"]).env_clear().env("RDS_URL", url).env("RDS_API_KEY", "k");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> (Option<i32>, Output) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), output)
}

#[test]
fn piped_input_has_an_end_and_the_exit_code_comes_back() {
    let mut child = terminal(|socket| {
        let mut typed = Vec::new();
        while !typed.ends_with(&[4]) {
            if let Message::Binary(bytes) = socket.read().unwrap() {
                typed.extend(bytes);
            }
        }
        socket.send(Message::binary(typed)).unwrap();
        socket.send(Message::text(r#"{"type":"exit","exitCode":7}"#)).unwrap();
        while socket.read().is_ok() {}
    });
    child.stdin.take().unwrap().write_all(b"words\n").unwrap();
    let (code, output) = ended(child);
    assert_eq!((code, &output.stdout[..]), (Some(7), &b"words\n\x04"[..]));
}

#[test]
fn why_the_server_ended_it_is_told() {
    let child = terminal(|socket| {
        socket.send(Message::text(r#"{"type":"error","message":"the VM has gone"}"#)).unwrap();
        while socket.read().is_ok() {}
    });
    let (code, output) = ended(child);
    assert_eq!(code, Some(125));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "rds: the VM has gone\n");
}

#[test]
fn a_signal_ends_it_though_nobody_reads_what_it_shows() {
    let (to, shown) = std::sync::mpsc::channel();
    let mut child = terminal(move |socket| {
        // More than a pipe takes.
        socket.send(Message::binary(vec![b'x'; 1 << 20])).unwrap();
        to.send(()).unwrap();
        while socket.read().is_ok() {}
    });
    shown.recv().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

//! The client against agents of every kind, over a stream in memory.

mod hostile;
mod outbound;
mod peer;
mod properties;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use rds_protocol::exec::{AgentFrame, ClientFrame, Exit, Program, Start, Stdin};
use rds_protocol::frame::FrameCodec;
use rds_protocol::guest::Health;
use rds_protocol::link::{History, accept};
use rds_protocol::{GENERATION, routes};
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio_util::codec::Decoder;

use super::body::{pieces, whole};
use super::{GuestClient, GuestError};
use peer::{agent, answer, reply};

/// Enough for anything that goes well.
const LIMIT: Duration = Duration::from_secs(5);

fn shell(cmd: &str) -> Start {
    Start {
        program: Program::Shell { cmd: cmd.into() },
        cwd: None,
        env: BTreeMap::new(),
        timeout_ms: None,
        stdin: Stdin::Closed,
        output_limit: None,
    }
}

fn exit(code: i32) -> AgentFrame {
    AgentFrame::Exit(Box::new(Exit { exit_code: code, ..Exit::default() }))
}

fn wire(frames: &[AgentFrame]) -> Bytes {
    frames.iter().flat_map(|frame| frame.encode().to_bytes()).collect()
}

#[tokio::test]
async fn an_adopted_agent_of_another_generation_is_refused() {
    for (generation, accepted) in [(GENERATION, true), (GENERATION + 1, false)] {
        let health = Health { generation, configured: true, uptime_ms: 1, resident_bytes: 1 };
        let health = serde_json::to_vec(&health).unwrap();
        let stream = peer::serve(move |_| reply(200, whole(health.clone())));
        let client = GuestClient::over(stream, History::Used, LIMIT).await;
        assert_eq!(client.is_ok(), accepted);
        assert!(accepted || matches!(client, Err(GuestError::Protocol(_))));
    }
}

#[tokio::test]
async fn a_program_is_run_and_its_output_collected() {
    let out = AgentFrame::Stdout(Bytes::from_static(b"out"));
    let err = AgentFrame::Stderr(Bytes::from_static(b"err"));
    let client = agent(answer(wire(&[out.clone(), err, out, exit(3)]))).await;
    let collected = client.run(shell("x"), LIMIT).await.unwrap();
    assert_eq!(collected.exit.exit_code, 3);
    assert_eq!((collected.stdout, collected.stderr), (b"outout".to_vec(), b"err".to_vec()));
}

/// Input goes in while output comes out: each waits for the other's next word.
#[tokio::test]
async fn a_program_is_talked_with_in_both_directions_at_once() {
    let client = agent(|request| {
        let (sender, mut frames) = mpsc::channel(1);
        tokio::spawn(async move {
            let (mut body, mut buffer) = (request.into_body().into_data_stream(), bytes::BytesMut::new());
            while let Some(piece) = body.next().await {
                buffer.extend_from_slice(&piece.unwrap());
                while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() {
                    let answer = match ClientFrame::decode(frame).unwrap() {
                        ClientFrame::Stdin(data) => AgentFrame::Stdout(data),
                        ClientFrame::StdinEnd => exit(0),
                        _ => continue,
                    };
                    sender.send(Ok(answer.encode().to_bytes())).await.unwrap();
                }
            }
        });
        reply(200, pieces(futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx))))
    })
    .await;
    let (input, mut output) = client.exec(shell("cat"), LIMIT).await.unwrap();
    for word in ["one", "two"] {
        input.send(&ClientFrame::Stdin(word.into())).await.unwrap();
        assert_eq!(output.next().await.unwrap().unwrap(), AgentFrame::Stdout(word.into()));
    }
    input.send(&ClientFrame::StdinEnd).await.unwrap();
    assert_eq!(output.next().await.unwrap().unwrap(), exit(0));
    assert!(output.next().await.is_none());
}

#[tokio::test]
async fn a_refusal_keeps_its_status_and_its_words() {
    let client = agent(|_| reply(409, whole(r#"{"message":"once\u0007 only"}"#))).await;
    let error = client.sync(LIMIT).await.unwrap_err();
    assert!(!error.may_have_run());
    assert!(matches!(error, GuestError::Status { status: 409, message } if message == "once  only"));
    let client = agent(|_| reply(500, whole("<html>"))).await;
    let error = client.stat("/workspace", LIMIT).await.unwrap_err();
    assert!(matches!(error, GuestError::Status { status: 500, message } if message.contains("500")));
}

#[tokio::test]
async fn a_command_is_sent_once_when_the_channel_breaks() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let (host, mut guest) = duplex(64 * 1024);
    let served = tokio::spawn(async move {
        accept(&mut guest).await.unwrap();
        let service = hyper::service::service_fn(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<Result<Response<super::RequestBody>, std::convert::Infallible>>()
        });
        let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ = server.serve_connection(hyper_util::rt::TokioIo::new(guest), service).await;
    });
    let client = GuestClient::over(Box::new(host), History::Fresh, LIMIT).await.unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.run(shell("x"), LIMIT).await }
    });
    while seen.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    served.abort();
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, GuestError::Unreachable { may_have_run: true, .. }), "{error:?}");
    client.closed().await;
    assert!(client.is_closed());
    let error = client.run(shell("y"), LIMIT).await.unwrap_err();
    assert!(matches!(error, GuestError::Unreachable { may_have_run: false, .. }), "{error:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn files_go_both_ways_piece_by_piece() {
    let client = agent(|request| match *request.method() {
        http::Method::GET => reply(200, whole(vec![7; 300_000])),
        _ => {
            let target = request.uri().to_string();
            assert!(target.ends_with("?path=%2Fworkspace%2Fa%20b&executable=true"), "{target}");
            let body = request.into_body();
            let eaten = async move {
                let data = body.collect().await.unwrap().to_bytes();
                assert_eq!(data.len(), 200_000);
                Ok(Bytes::new())
            };
            reply(StatusCode::OK.as_u16(), pieces(futures_util::stream::once(eaten)))
        }
    })
    .await;
    let content = futures_util::stream::iter((0..200).map(|_| Ok(Bytes::from(vec![1; 1000]))));
    client.put_content("/workspace/a b", true, content, LIMIT).await.unwrap();
    let download = client.get_content("/workspace/a", 300_000, LIMIT).await.unwrap();
    let lengths: Vec<_> = download.into_stream().map(|piece| piece.unwrap().len()).collect().await;
    assert_eq!(lengths.iter().sum::<usize>(), 300_000);
}

#[tokio::test]
async fn readers_that_stall_hold_nobody_else_up() {
    let client = agent(|request| match request.uri().path() {
        routes::CONTENT => reply(200, whole(vec![7; 2_000_000])),
        _ => reply(204, whole("")),
    })
    .await;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let mut download = client.get_content("/workspace/a", 2_000_000, LIMIT).await.unwrap();
        download.next().await.unwrap().unwrap();
        stalled.push(download);
    }
    client.sync(LIMIT).await.unwrap();
    let rest = stalled.pop().unwrap().into_stream().map(|piece| piece.unwrap().len());
    assert!(rest.collect::<Vec<_>>().await.iter().sum::<usize>() > 1_900_000);
}

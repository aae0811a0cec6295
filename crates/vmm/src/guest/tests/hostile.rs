//! Agents that answer garbage, too much, too slowly or never.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use rds_protocol::exec::AgentFrame;
use rds_protocol::limits::{FRAME_BYTES, JSON_FRAME_BYTES, OUTPUT_BYTES, REPLY_BYTES};
use rds_protocol::link::{History, accept};
use tokio::io::{AsyncWriteExt, duplex};

use super::peer::{agent, answer, reply};
use super::{LIMIT, exit, shell, wire};
use crate::guest::body::{pieces, whole};
use crate::guest::{Collected, GuestClient, GuestError};

/// Enough for an agent that is about to do nothing.
const SHORT: Duration = Duration::from_millis(100);

async fn run(answered: impl Into<Bytes>) -> Result<Collected, GuestError> {
    agent(answer(answered)).await.run(shell("x"), LIMIT).await
}

#[tokio::test]
async fn garbage_in_a_reply_is_nonsense() {
    for garbage in ["", "null", "[]", "{\"generation\":-1}", "{\"generation\":1", "\u{0}\u{ff}"] {
        let error = agent(answer(garbage)).await.health(LIMIT).await.unwrap_err();
        assert!(matches!(error, GuestError::Protocol(_)), "{garbage}: {error:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(agent(answer(deep)).await.health(LIMIT).await, Err(GuestError::Protocol(_))));
}

#[tokio::test]
async fn garbage_in_the_frames_is_nonsense() {
    let start = super::ClientFrame::StdinEnd.encode().to_bytes();
    let bad_exit = [&[0x13, 0, 0, 0, 2][..], b"{}"].concat();
    let huge = [0x11, 0xff, 0xff, 0xff, 0xff].to_vec();
    for garbage in [b"\x99\0\0\0\0".to_vec(), start.to_vec(), bad_exit, huge] {
        let error = run(garbage).await.unwrap_err();
        assert!(matches!(error, GuestError::Protocol(_)), "{error:?}");
    }
    let cut = wire(&[exit(0)]);
    assert!(run(cut.slice(..cut.len() - 1)).await.is_err());
    let no_exit = run(wire(&[AgentFrame::Stdout(Bytes::from_static(b"x"))])).await.unwrap_err();
    assert!(no_exit.may_have_run());
}

#[tokio::test]
async fn garbage_instead_of_http_ends_the_connection() {
    for garbage in [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![0xff; 100_000], vec![0; 100_000]] {
        let (host, mut guest) = duplex(64 * 1024);
        tokio::spawn(async move {
            accept(&mut guest).await.unwrap();
            let _ = guest.write_all(&garbage).await;
            std::future::pending::<()>().await;
        });
        let client = GuestClient::over(Box::new(host), History::Fresh, LIMIT).await.unwrap();
        let error = client.health(LIMIT).await.unwrap_err();
        assert!(matches!(error, GuestError::Unreachable { .. }), "{error:?}");
        client.closed().await;
    }
}

#[tokio::test]
async fn too_large_a_reply_is_not_read() {
    let error = agent(answer(vec![b' '; REPLY_BYTES + 1])).await.health(LIMIT).await.unwrap_err();
    assert!(matches!(error, GuestError::Protocol(_)), "{error:?}");
    let error = agent(answer("x")).await.sync(LIMIT).await.unwrap_err();
    assert!(matches!(error, GuestError::Protocol(_)), "{error:?}");
    let client = agent(|_| reply(400, whole(vec![b' '; REPLY_BYTES + 1]))).await;
    assert!(matches!(client.sync(LIMIT).await, Err(GuestError::Protocol(_))));
    let client = agent(|_| reply(400, whole(format!("{{\"message\":\"{}\"}}", "x".repeat(100_000))))).await;
    let refused = client.sync(LIMIT).await;
    assert!(matches!(refused, Err(GuestError::Status { message, .. }) if message.len() == crate::guest::MESSAGE_CHARS));
    let client = agent(|_| reply(500, whole(r#"{"message":"x\nINFO\u001b[2J\u202ey"}"#))).await;
    let refused = client.sync(LIMIT).await;
    assert!(matches!(refused, Err(GuestError::Status { message, .. }) if message == "x INFO [2J y"));
    let mut download = agent(answer(vec![0; 100_000])).await.get_content("/x", 50_000, LIMIT).await.unwrap();
    let mut sizes = Vec::new();
    while let Some(Ok(piece)) = download.next().await {
        sizes.push(piece.len());
    }
    assert!(sizes.iter().sum::<usize>() <= 50_000);
}

#[tokio::test]
async fn output_is_kept_to_its_limit_and_a_huge_result_is_refused() {
    let piece = AgentFrame::Stdout(vec![b'x'; FRAME_BYTES].into());
    let mut frames = vec![piece; 20];
    frames.push(exit(0));
    let collected = run(wire(&frames)).await.unwrap();
    assert_eq!(collected.stdout.len() as u64, OUTPUT_BYTES);
    assert!(collected.exit.truncated);
    let size = u32::try_from(JSON_FRAME_BYTES).unwrap();
    let huge = [&[0x13][..], &size.to_be_bytes(), &vec![b'['; JSON_FRAME_BYTES]].concat();
    assert!(matches!(run(huge).await, Err(GuestError::Protocol(_))));
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let client = agent(|_| {
        let mut large = reply(200, whole(""));
        for number in 0..200 {
            let name = format!("x-{number}").parse::<http::HeaderName>().unwrap();
            large.headers_mut().insert(name, "x".repeat(100).parse().unwrap());
        }
        large
    })
    .await;
    assert!(client.sync(LIMIT).await.is_err());
}

#[tokio::test]
async fn a_redirect_is_nonsense() {
    let client = agent(|_| reply(302, whole(""))).await;
    assert!(matches!(client.sync(LIMIT).await, Err(GuestError::Protocol(_))));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_is_given_up() {
    let never = || pieces(futures_util::stream::pending());
    let client = agent(move |_| reply(200, never())).await;
    assert!(matches!(client.health(SHORT).await, Err(GuestError::Timeout)));
    assert!(matches!(client.sync(SHORT).await, Err(GuestError::Timeout)));
    assert!(matches!(client.run(shell("x"), SHORT).await, Err(GuestError::Timeout)));
    let mut download = client.get_archive("/x", 1000, SHORT).await.unwrap();
    assert!(matches!(download.next().await, Some(Err(GuestError::Timeout))));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_drips_is_given_up() {
    let drip = || {
        pieces(futures_util::stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(Bytes::from_static(b" "))
        }))
    };
    let client = agent(move |_| reply(200, drip())).await;
    assert!(matches!(client.health(SHORT).await, Err(GuestError::Timeout)));
    let download = client.get_archive("/x", 1000, SHORT).await.unwrap();
    let last = download.into_stream().collect::<Vec<_>>().await.pop().unwrap();
    assert!(matches!(last, Err(GuestError::Timeout)));
}

/// A guest that hangs is noticed though nobody calls it.
#[tokio::test(start_paused = true)]
async fn a_silent_guest_is_noticed() {
    let (host, mut guest) = duplex(64 * 1024);
    let _alive = tokio::spawn(async move {
        accept(&mut guest).await.unwrap();
        std::future::pending::<()>().await;
        drop(guest);
    });
    let client = GuestClient::over(Box::new(host), History::Fresh, LIMIT).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), client.closed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_greet_is_given_up() {
    for history in [History::Fresh, History::Used] {
        let (host, _guest) = duplex(64);
        let client = GuestClient::over(Box::new(host), history, SHORT).await;
        assert!(matches!(client, Err(GuestError::Timeout)));
    }
}

//! Calls out of a guest, over a stream in memory: here the guest is the client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rds_protocol::link::{History, accept};
use rds_protocol::peer::INVOKE;
use tokio::io::duplex;
use tokio::time::sleep;

use crate::guest::outbound::{Answer, CALL_LIMIT, Reply, STREAMS, serve_over};

const BYTES: usize = 4 << 20;

/// Answers every call with the same large text, and counts those that are still there.
#[derive(Clone, Default)]
struct Large(Arc<AtomicUsize>);

struct Text(Vec<u8>, Large);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.1.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Answer for Large {
    async fn answer(&self, _: Bytes) -> Reply {
        self.0.fetch_add(1, Ordering::SeqCst);
        let body = Bytes::from_owner(Text(vec![b'x'; BYTES], self.clone()));
        Reply { status: 200, retry_after: None, body }
    }

    fn refuse(&self, status: u16, _: &str) -> Reply {
        Reply { status, retry_after: None, body: Bytes::new() }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_there_until_the_guest_has_it_or_its_time_is_over() {
    let (host, mut guest) = duplex(64 * 1024);
    let replies = Large::default();
    let answer: Arc<dyn Answer> = Arc::new(replies.clone());
    let served = tokio::spawn(async move {
        let _ = serve_over(Box::new(host), History::Fresh, &answer).await;
    });
    accept(&mut guest).await.unwrap();
    let (calls, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(guest)).await.unwrap();
    tokio::spawn(connection);
    let call = async || {
        let request = Request::post(format!("http://manager{INVOKE}")).body(Full::new("{}".into())).unwrap();
        let mut calls = calls.clone();
        calls.ready().await.unwrap();
        calls.send_request(request).await.unwrap().into_body()
    };
    let there = || replies.0.load(Ordering::SeqCst);

    assert_eq!(call().await.collect().await.unwrap().to_bytes().len(), BYTES);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(there(), 0, "one that was read");
    let mut unread = Vec::new();
    for _ in 0..STREAMS {
        unread.push(call().await);
    }
    assert_eq!(there(), STREAMS as usize);
    sleep(CALL_LIMIT + Duration::from_secs(1)).await;
    assert_eq!(there(), 0, "some that were not");
    for body in unread {
        assert!(body.collect().await.is_err(), "it broke off");
    }
    assert_eq!(call().await.collect().await.unwrap().to_bytes().len(), BYTES, "and there is room again");
    served.abort();
}

//! An agent whose answers a test chooses.

use std::convert::Infallible;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rds_protocol::link::{History, accept};
use tokio::io::{DuplexStream, duplex};

use super::LIMIT;
use crate::guest::GuestClient;
use crate::guest::body::{RequestBody, whole};

pub(super) type Reply = Response<RequestBody>;

pub(super) fn reply(status: u16, body: RequestBody) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status.try_into().unwrap();
    reply
}

/// An agent that gives the same bytes to every call.
pub(super) fn answer(body: impl Into<bytes::Bytes>) -> impl Fn(Request<Incoming>) -> Reply + Send + 'static {
    let body = body.into();
    move |_| reply(200, whole(body.clone()))
}

/// Serves a stream like an agent does, answering each call with `handler`.
pub(super) fn serve(handler: impl Fn(Request<Incoming>) -> Reply + Send + 'static) -> Box<DuplexStream> {
    let (host, mut guest) = duplex(64 * 1024);
    tokio::spawn(async move {
        accept(&mut guest).await.unwrap();
        let service = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(handler(request))));
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(guest), service).await;
    });
    Box::new(host)
}

/// A client of such an agent.
pub(super) async fn agent(handler: impl Fn(Request<Incoming>) -> Reply + Send + 'static) -> GuestClient {
    GuestClient::over(serve(handler), History::Fresh, LIMIT).await.unwrap()
}

//! Where a consumer's code calls its peers: a small HTTP/1 server on loopback.
//!
//! It looks at nothing but the path, the bearer token and the length of a call.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rds_protocol::peer::{Bridge as Opened, CALL_BYTES, INVOKE, OpenBridge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::outbound::Outbound;
use crate::error::{SystemError, While};

/// Calls at once. Each holds its body until the manager has taken it.
pub(super) const CALLS: u32 = 64;

/// Connections at once. Further ones wait to be accepted.
const CONNECTIONS: usize = 128;

/// What is read of a body that is refused.
const DRAIN_BYTES: usize = 16 * 1024 * 1024;

/// How long a connection may be silent between calls, and how long a call's body may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are read of a head, or at once of a body.
const BUFFER: usize = 16 * 1024;

/// A reply: the manager's, or the agent's own.
type Reply = Response<Either<Incoming, Full<Bytes>>>;

/// The server. It listens once it is opened, on one port for as long as the VM lives.
pub(crate) struct Bridge {
    manager: Rc<Outbound>,
    tokens: RefCell<Tokens>,
    port: Cell<Option<u16>>,
    calls: Semaphore,
    connections: Semaphore,
}

/// What a caller must have. New files may take long to come, and may not come at all: until then the token in the old ones
/// is good, too.
#[derive(Default)]
struct Tokens {
    /// In the files that are in place.
    placed: Option<Zeroizing<String>>,
    /// In those to come.
    coming: Option<Zeroizing<String>>,
}

impl Bridge {
    /// A closed one.
    pub(crate) fn new(manager: Rc<Outbound>) -> Self {
        Self {
            manager,
            tokens: RefCell::default(),
            port: Cell::default(),
            calls: Semaphore::new(CALLS as usize),
            connections: Semaphore::new(CONNECTIONS),
        }
    }

    /// Takes calls with this token from now on, and with no other once the files with it are in place.
    pub(crate) async fn open(self: &Rc<Self>, order: OpenBridge) -> Result<Opened, SystemError> {
        let port = match self.port.get() {
            Some(port) => port,
            None => self.listen().await?,
        };
        self.tokens.borrow_mut().coming = Some(Zeroizing::new(order.token));
        Ok(Opened { port })
    }

    /// The files with the last token are in place.
    pub(crate) fn placed(&self) {
        let mut tokens = self.tokens.borrow_mut();
        if let Some(token) = tokens.coming.take() {
            tokens.placed = Some(token);
        }
    }

    /// Takes no calls until it is opened again.
    pub(crate) fn close(&self) {
        self.tokens.take();
    }

    /// Where it listens, once it is open.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port.get()
    }

    async fn listen(self: &Rc<Self>) -> Result<u16, SystemError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.while_("listen on loopback")?;
        let port = listener.local_addr().while_("learn the port")?.port();
        self.port.set(Some(port));
        tokio::task::spawn_local(Rc::clone(self).accept(listener));
        Ok(port)
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            let room = self.connections.acquire().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    // An answer's head and body are two writes; the second must not wait until the first is
                    // acknowledged, which takes the other side 40 ms.
                    let _ = stream.set_nodelay(true);
                    if let Ok(room) = room {
                        room.forget();
                    }
                    tokio::task::spawn_local(Rc::clone(&self).serve(stream));
                }
                // Out of memory or files for the moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let bridge = Rc::clone(&self);
            async move { Ok::<_, Infallible>(bridge.answer(request).await.unwrap_or_else(|refusal| refusal)) }
        });
        // Whatever goes wrong is the caller's to notice.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        self.connections.add_permits(1);
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Reply, Reply> {
        let (head, mut body) = request.into_parts();
        let _room = match self.admit(&head) {
            Ok(room) => room,
            Err(refusal) => {
                drain(&mut body).await;
                return Err(*refusal);
            }
        };
        let body = match timeout(PATIENCE, Limited::new(&mut body, CALL_BYTES).collect()).await {
            Ok(Ok(whole)) => whole.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                drain(&mut body).await;
                return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the call is larger than 1 MiB"));
            }
            Ok(Err(_)) | Err(_) => {
                return Err(refuse(StatusCode::BAD_REQUEST, "invalid_request", "the call broke off"));
            }
        };
        let mut call = Request::new(Full::new(body));
        *call.method_mut() = Method::POST;
        *call.uri_mut() = format!("http://manager{INVOKE}").parse().expect("a constant is a URI");
        call.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let reply = self.manager.ask(call).await;
        let reply =
            reply.ok_or_else(|| refuse(StatusCode::BAD_GATEWAY, "bad_gateway", "the manager can't be reached"))?;
        let (head, body) = reply.into_parts();
        let mut passed_on = Response::new(Either::Left(body));
        *passed_on.status_mut() = head.status;
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            if let Some(value) = head.headers.get(&name) {
                passed_on.headers_mut().insert(name, value.clone());
            }
        }
        Ok(passed_on)
    }

    /// Room for a call, if its head is that of one.
    fn admit(&self, head: &Parts) -> Result<SemaphorePermit<'_>, Box<Reply>> {
        if head.uri.path() != INVOKE {
            return Err(refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing here").into());
        }
        if head.method != Method::POST {
            let mut reply = refuse(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "calls are made with POST");
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Err(reply.into());
        }
        if !self.knows(head.headers.get(AUTHORIZATION)) {
            return Err(
                refuse(StatusCode::UNAUTHORIZED, "unauthorized", "the bearer token is missing or not valid").into()
            );
        }
        self.calls.try_acquire().map_err(|_| {
            let mut reply = refuse(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "too many calls at once");
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            reply.into()
        })
    }

    fn knows(&self, authorization: Option<&HeaderValue>) -> bool {
        let given = authorization.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let Some(given) = given else { return false };
        let Tokens { placed, coming } = &*self.tokens.borrow();
        [placed, coming].into_iter().flatten().any(|token| equal(given.as_bytes(), token.as_bytes()))
    }
}

/// Reads on for a while, forgetting what comes: a caller that still sends would not see the answer.
async fn drain(body: &mut Incoming) {
    let drain = async {
        let mut drained = 0;
        while drained <= DRAIN_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            drained += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // One that has not ended by then is left with its connection.
    let _ = timeout(PATIENCE, drain).await;
}

/// Compares in a time that depends on the lengths alone.
fn equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    a.len() == b.len() && difference == 0
}

/// A refusal in the words of the manager's own, so that a caller need not know who refused.
fn refuse(status: StatusCode, code: &str, message: &str) -> Reply {
    let text = serde_json::json!({ "message": message, "code": code }).to_string();
    let mut reply = Response::new(Either::Right(Full::new(text.into())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_equal() {
        assert!(equal(b"token", b"token"));
        for other in [&b""[..], b"toke", b"tokens", b"tokem", b"Token"] {
            assert!(!equal(b"token", other));
        }
    }
}

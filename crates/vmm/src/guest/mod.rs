//! Calls into a guest: the one door to the agent.
//!
//! Everything that comes back is hostile. Each reply has a size limit and each call a time limit, and both hold whatever
//! the guest does. A call is sent once: what to do after a broken channel is the caller's decision, and
//! [`GuestError::may_have_run`] tells it what is known. This module must not know what a VM is for, nor when to connect
//! again.

mod body;
mod error;
mod exec;
mod files;
pub mod outbound;
mod peers;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::{Method, Request};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rds_protocol::guest::{AdjustClock, AgentError, Clock, Configure, Health, Thawed};
use rds_protocol::json::containers;
use rds_protocol::limits::{CONTAINERS, REPLY_BYTES};
use rds_protocol::link::{self, History};
use rds_protocol::{GENERATION, routes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use uuid::Uuid;

use crate::hypervisor::{ByteStream, Hypervisor, Port};

pub use body::Download;
pub use error::{GuestError, MESSAGE_CHARS};
pub use exec::{Collected, ExecSender, ExecStream};
pub use peers::outcome;

use body::{RequestBody, read_whole, whole};
use trace::Traced;

/// Silence after which the guest is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How long a sign of life may take. An emulated guest under a fork bomb answers within a few seconds.
const PING_LIMIT: Duration = Duration::from_secs(30);

/// Between two attempts to greet a guest that has just been started.
const PAUSE: Duration = Duration::from_millis(2);

/// Calls at once that an agent takes; further ones wait here.
const STREAMS: u32 = 256;

/// Bytes that the guest may send on one stream before they are read, and on all together. Calls whose replies wait for slow
/// clients must leave room for the others, or these would wait for ever. A guest can fill only the streams that clients hold
/// open, so what it can have here is [`STREAM_WINDOW`] for each of them.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// Bytes of a reply's headers. An agent sends three short ones.
const HEADER_BYTES: u32 = 8 * 1024;

/// A connection to the agent of one VM. Cheap to clone; the connection ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct GuestClient {
    sender: http2::SendRequest<RequestBody>,
    closed: CancellationToken,
    end: CancellationToken,
}

impl GuestClient {
    /// Opens the guest channel of the machine in `dir` and brings it to a known state, within `limit`.
    ///
    /// `history` is [`History::Fresh`] only for the first connection to a machine that has just been started or restored.
    /// An older connection to the same machine must be closed before: the channel carries one at a time. An agent of
    /// another generation of the protocol is refused with [`GuestError::Protocol`].
    pub async fn connect(
        hypervisor: &dyn Hypervisor,
        dir: &Path,
        history: History,
        limit: Duration,
    ) -> Result<Self, GuestError> {
        let deadline = Instant::now() + limit;
        loop {
            let opened = timeout_at(deadline, hypervisor.connect(dir, Port::In)).await;
            let stream = opened.map_err(|_| GuestError::Timeout)??;
            match Self::over(stream, history, deadline.saturating_duration_since(Instant::now())).await {
                // A guest that was restored, or stood still, drops the streams that it has when it notices, and it may have
                // had this one. Nothing was asked on it.
                Err(GuestError::Unreachable { may_have_run: false, .. })
                    if history != History::Used && Instant::now() < deadline =>
                {
                    sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// The same over a stream that is open already.
    pub async fn over(mut stream: Box<dyn ByteStream>, history: History, limit: Duration) -> Result<Self, GuestError> {
        let deadline = Instant::now() + limit;
        link::greet(&mut stream, history, || Uuid::new_v4().into_bytes(), limit).await?;
        let client = timeout_at(deadline, Self::handshake(stream)).await.map_err(|_| GuestError::Timeout)??;
        // A fresh machine runs the agent that this program brought; another one may be older than this program.
        if history != History::Fresh {
            let health = client.health(deadline.saturating_duration_since(Instant::now())).await?;
            if health.generation != GENERATION {
                return Err(GuestError::Protocol(format!("an agent of generation {}", health.generation)));
            }
        }
        Ok(client)
    }

    async fn handshake(stream: Box<dyn ByteStream>) -> Result<Self, GuestError> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_LIMIT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(GuestError::unsent)?;
        let closed = CancellationToken::new();
        let guard = closed.clone().drop_guard();
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        tokio::spawn(async move {
            let _guard = guard;
            tokio::select! {
                // What is sent from here on is too late.
                biased;
                () = ended => {}
                outcome = connection => if let Err(error) = outcome {
                    tracing::debug!(%error, "a guest channel broke");
                }
            }
        });
        Ok(Self { sender, closed, end })
    }

    /// Ends the connection, whoever else has it, and returns when the channel is free for another.
    pub async fn close(&self) {
        self.end.cancel();
        self.closed().await;
    }

    /// Returns when the connection has ended, for whatever reason. It does not come back.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// How the agent is.
    pub async fn health(&self, limit: Duration) -> Result<Health, GuestError> {
        self.json(Method::GET, routes::HEALTH, whole(""), limit).await
    }

    /// Has a guest that is nobody do once what makes it somebody, so that it is fast the next time. Its disk is not
    /// mounted when this returns, and must be given its content anew.
    pub async fn rehearse(&self, limit: Duration) -> Result<(), GuestError> {
        self.empty(Method::POST, routes::REHEARSE, whole(""), limit).await
    }

    /// Tells the guest who it is, and gives its clock then. 409 if it knows already.
    pub async fn configure(&self, configure: &Configure, limit: Duration) -> Result<Clock, GuestError> {
        self.json(Method::POST, routes::CONFIGURE, to_json(configure), limit).await
    }

    /// Makes a copy of a VM, which was configured before it was copied, a VM of its own, and gives its clock then.
    pub async fn rename(&self, configure: &Configure, limit: Duration) -> Result<Clock, GuestError> {
        self.json(Method::POST, routes::RENAME, to_json(configure), limit).await
    }

    /// Replaces the environment of the guest's secrets. Programs that begin after this returns see the new one.
    pub async fn set_secrets(&self, variables: &BTreeMap<String, String>, limit: Duration) -> Result<(), GuestError> {
        self.empty(Method::PUT, routes::SECRETS, to_json(variables), limit).await
    }

    /// Returns when everything that the guest has written is on its disk.
    pub async fn sync(&self, limit: Duration) -> Result<(), GuestError> {
        self.empty(Method::POST, routes::SYNC, whole(""), limit).await
    }

    /// Puts the guest's wall clock forward by so many microseconds and gives what it is then.
    pub async fn adjust_clock(&self, by_us: i64, limit: Duration) -> Result<Clock, GuestError> {
        self.json(Method::POST, routes::CLOCK, to_json(&AdjustClock { by_us }), limit).await
    }

    /// Returns when no program of the guest runs any more, until [`Self::let_go`]. In a copy of its memory that is made then, none
    /// runs before [`Self::rename`] has been answered.
    pub async fn hold(&self, limit: Duration) -> Result<(), GuestError> {
        self.empty(Method::POST, routes::HOLD, whole(""), limit).await
    }

    /// Lets the guest's programs go on, whether they were held or not.
    pub async fn let_go(&self, limit: Duration) -> Result<(), GuestError> {
        self.empty(Method::POST, routes::LET_GO, whole(""), limit).await
    }

    /// Returns when everything that the guest has written is on its disk and nothing more gets there until [`Self::thaw`];
    /// the agent does not wait for that longer than [`FROZEN_SECONDS`](rds_protocol::limits::FROZEN_SECONDS).
    pub async fn freeze(&self, limit: Duration) -> Result<(), GuestError> {
        self.empty(Method::POST, routes::FREEZE, whole(""), limit).await
    }

    /// Lets the guest write again. An error means that it may have written before.
    pub async fn thaw(&self, limit: Duration) -> Result<Thawed, GuestError> {
        self.json(Method::POST, routes::THAW, whole(""), limit).await
    }

    /// A call that answers JSON of at most [`REPLY_BYTES`].
    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: RequestBody,
        limit: Duration,
    ) -> Result<T, GuestError> {
        self.json_of(REPLY_BYTES, method, target, body, limit).await
    }

    /// A call that answers JSON of at most `bytes`.
    async fn json_of<T: DeserializeOwned>(
        &self,
        bytes: usize,
        method: Method,
        target: &str,
        body: RequestBody,
        limit: Duration,
    ) -> Result<T, GuestError> {
        let call = async { read_whole(self.send(method, target, body).await?, bytes).await };
        from_json(&timeout(limit, call).await.map_err(|_| GuestError::Timeout)??)
    }

    /// A call that answers nothing.
    async fn empty(&self, method: Method, target: &str, body: RequestBody, limit: Duration) -> Result<(), GuestError> {
        let call = async { read_whole(self.send(method, target, body).await?, 0).await };
        timeout(limit, call).await.map_err(|_| GuestError::Timeout)??;
        Ok(())
    }

    /// Sends a request once and gives the body of a successful reply.
    #[tracing::instrument(level = "debug", name = "guest", skip_all, fields(route = route(target), otel.kind = "client"))]
    async fn send(&self, method: Method, target: &str, body: RequestBody) -> Result<Incoming, GuestError> {
        // HTTP/2 wants an authority; the guest's is whatever the channel leads to.
        let request = Request::builder().method(method).uri(format!("http://guest{target}"));
        let mut request = request.body(body).map_err(GuestError::unsent)?;
        let traced = Traced::begin(&Span::current(), request.headers_mut());
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(GuestError::unsent)?;
        let reply = sender.try_send_request(request).await.map_err(|mut error| match error.take_message() {
            Some(_) => GuestError::unsent(error.into_error()),
            None => GuestError::broken(error.into_error()),
        })?;
        if let Some(traced) = traced {
            traced.end(route(target), reply.headers());
        }
        let status = reply.status();
        if status.is_success() {
            return Ok(reply.into_body());
        }
        if !status.is_client_error() && !status.is_server_error() {
            return Err(GuestError::Protocol(format!("status {status}")));
        }
        let words = read_whole(reply.into_body(), REPLY_BYTES).await?;
        let message = match serde_json::from_slice::<AgentError>(&words) {
            Ok(error) => error.message,
            Err(_) => format!("the guest answered {status}"),
        };
        Err(GuestError::status(status.as_u16(), &message))
    }
}

/// A target without its query, in which a client's paths may be.
fn route(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// A protocol message from a reply's body.
fn from_json<T: DeserializeOwned>(reply: &[u8]) -> Result<T, GuestError> {
    if containers(reply) > CONTAINERS {
        return Err(GuestError::Protocol(format!("more than {CONTAINERS} arrays and objects")));
    }
    serde_json::from_slice(reply).map_err(|error| GuestError::Protocol(error.to_string()))
}

/// A protocol message as a request body.
fn to_json(message: &impl Serialize) -> RequestBody {
    whole(serde_json::to_vec(message).expect("protocol types have string keys and no failing serialisers"))
}

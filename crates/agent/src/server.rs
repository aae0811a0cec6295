//! Serving the manager: HTTP/2 over the channel, and the table of what is served.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rds_protocol::guest::AdjustClock;
use rds_protocol::limits::JSON_FRAME_BYTES;
use rds_protocol::{TIMING, link, routes};

use crate::agent::Agent;
use crate::channel::Door;
use crate::clock;
use crate::error::SystemError;
use crate::exec;
use crate::files::{self, jailed::Order};
use crate::log;
use crate::peers::trees;
use crate::reply::{Body, Refusal, empty, ok, read_json};

/// Calls at once.
const STREAMS: u32 = 256;

/// Bytes that may come of one call before they are read, and of all together. Calls whose bodies wait to be read, like the
/// input of a program that does not, must leave room for the others, or these would wait for ever. Together they are no more
/// than what is kept from programs in the smallest guest ([`crate::cgroup`]).
const STREAM_WINDOW: u32 = 32 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// Bytes of one reply that wait to be sent.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// Largest HTTP/2 frame; [`link`] relies on it.
pub(crate) const HTTP2_FRAME: u32 = 16_384;

/// Runs hyper's tasks on the agent's one thread.
#[derive(Clone)]
pub(crate) struct Local;

impl<F: Future + 'static> Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// Serves one manager after the other, for ever.
pub(crate) async fn serve(agent: Rc<Agent>, door: Door) -> Result<(), SystemError> {
    loop {
        if let Err(error) = serve_one(&agent, &door).await {
            log::information(format_args!("connection ended: {error}"));
            // A door that fails at once must not keep the processor busy.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn serve_one(agent: &Rc<Agent>, door: &Door) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = door.next().await?;
    link::accept(&mut stream).await?;
    let service = service_fn(|request| {
        let agent = Rc::clone(agent);
        async move {
            let begun = Instant::now();
            let mut reply = route(&agent, request).await.unwrap_or_else(Refusal::into_response);
            let took = format!("agent;dur={}", begun.elapsed().as_secs_f64() * 1000.0);
            reply.headers_mut().insert(TIMING, took.parse().expect("digits are fit for a header"));
            Ok::<_, Infallible>(reply)
        }
    });
    http2::Builder::new(Local)
        .max_concurrent_streams(STREAMS)
        // Calls that were given up before the agent came to look at them: no more than there may be.
        .max_pending_accept_reset_streams(STREAMS as usize)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn route(agent: &Agent, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let field = |name: &str| files::field(head.uri.query(), name);
    match (&head.method, head.uri.path()) {
        (&Method::GET, routes::HEALTH) => Ok(ok(&agent.health())),
        (&Method::POST, routes::CONFIGURE) => Ok(ok(&agent.configure(read_json(body, JSON_FRAME_BYTES).await?)?)),
        (&Method::POST, routes::REHEARSE) => agent.rehearse().await.map(|()| empty()),
        (&Method::POST, routes::RENAME) => Ok(ok(&agent.rename(read_json(body, JSON_FRAME_BYTES).await?)?)),
        (&Method::POST, routes::EXEC) => exec::exec(agent.vm()?, body).await,
        (&Method::PUT, routes::SECRETS) => {
            let variables: BTreeMap<String, String> = read_json(body, JSON_FRAME_BYTES).await?;
            let vm = agent.vm()?;
            vm.secrets.replace(variables.into());
            vm.workers.replace_all();
            Ok(empty())
        }
        (&Method::POST, routes::BRIDGE) => {
            // A guest that is nobody has no peers.
            agent.vm()?;
            let opened = agent.bridge.open(read_json(body, JSON_FRAME_BYTES).await?).await;
            Ok(ok(&opened.map_err(Refusal::internal)?))
        }
        (&Method::POST, routes::OFFER) => {
            let (vm, offer) = (agent.vm()?, read_json(body, JSON_FRAME_BYTES).await?);
            Ok(ok(&vm.workers.offer(&vm, offer).await?))
        }
        (&Method::POST, routes::CALL) => {
            let (vm, call) = (agent.vm()?, read_json(body, JSON_FRAME_BYTES).await?);
            Ok(ok(&vm.workers.call(&vm, call).await?))
        }
        (&Method::PUT, routes::TREES) => trees::put(agent.vm()?, body).await,
        (&Method::POST, routes::SYNC) => files::sync(agent.vm()?, body).await,
        (&Method::POST, routes::CLOCK) => {
            let order: AdjustClock = read_json(body, JSON_FRAME_BYTES).await?;
            Ok(ok(&clock::adjust(order).map_err(Refusal::internal)?))
        }
        (&Method::POST, routes::HOLD) => agent.vm()?.hold().await.map(|()| empty()),
        (&Method::POST, routes::LET_GO) => {
            agent.vm()?.let_go().map_err(Refusal::internal)?;
            Ok(empty())
        }
        (&Method::POST, routes::FREEZE) => agent.vm()?.freeze().await.map(|()| empty()),
        (&Method::POST, routes::THAW) => Ok(ok(&agent.vm()?.thaw().await?)),
        (&Method::PUT, routes::ARCHIVE) => {
            files::put(agent.vm()?, Order::PutArchive { dest: field("dest")? }, body).await
        }
        (&Method::GET, routes::ARCHIVE) => files::get(agent.vm()?, Order::GetArchive { path: field("path")? }).await,
        (&Method::PUT, routes::CONTENT) => {
            let executable = field("executable")? == "true";
            files::put(agent.vm()?, Order::PutContent { path: field("path")?, executable }, body).await
        }
        (&Method::GET, routes::CONTENT) => files::get(agent.vm()?, Order::GetContent { path: field("path")? }).await,
        (&Method::GET, routes::STAT) => files::get(agent.vm()?, Order::Stat { path: field("path")? }).await,
        (&Method::GET, routes::LIST) => files::get(agent.vm()?, Order::List { path: field("path")? }).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "no such call")),
    }
}

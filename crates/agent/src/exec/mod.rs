//! Running a program for a client: `POST /v1/exec`.

pub(crate) mod command;
mod input;
mod outcome;
mod output;
mod run;
mod streams;

use std::rc::Rc;

use futures_util::StreamExt;
use http::Response;
use rds_protocol::exec::{ClientFrame, Start};
use tokio::sync::mpsc;

use crate::agent::Vm;
use crate::reply::{Body, ClientFrames, Refusal, frames_of};
use run::Run;

/// Frames that may wait for a client that reads slowly.
const BACKLOG: usize = 4;

/// Runs a program. The reply begins once it runs.
pub(crate) async fn exec(vm: Rc<Vm>, body: hyper::body::Incoming) -> Result<Response<Body>, Refusal> {
    let mut frames = frames_of(body);
    let start = read_start(&mut frames).await?;
    let run = Run::start(vm, &start).await?;
    let (client, replies) = mpsc::channel(BACKLOG);
    tokio::task::spawn_local(run.carry_out(frames, client));
    Ok(Response::new(Body::Stream(replies)))
}

async fn read_start(frames: &mut ClientFrames) -> Result<Box<Start>, Refusal> {
    let frame = frames.next().await.ok_or_else(|| Refusal::bad("the request has no start frame"))?;
    match frame.and_then(ClientFrame::decode) {
        Ok(ClientFrame::Start(start)) => Ok(start),
        Ok(_) => Err(Refusal::bad("the first frame is not a start frame")),
        Err(error) => Err(Refusal::bad(error)),
    }
}

//! The channel out of the guest: the agent is the client of an HTTP/2 connection to the manager.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use rds_protocol::link;

use super::bridge::CALLS;
use crate::channel::Door;
use crate::error::SystemError;
use crate::log;
use crate::server::{HTTP2_FRAME, Local, SEND_BUFFER};

/// Bytes of one answer that may come before they are read, and of all that the bridge can wait for: an answer that nobody
/// takes must leave room for the others.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = CALLS * STREAM_WINDOW;

/// The way to the manager, while there is one.
#[derive(Default)]
pub(crate) struct Outbound {
    manager: RefCell<Option<http2::SendRequest<Full<Bytes>>>>,
}

impl Outbound {
    /// Keeps a connection to whichever manager greets, for ever.
    pub(crate) async fn run(&self, door: Door) -> Result<(), SystemError> {
        loop {
            if let Err(error) = self.run_one(&door).await {
                log::information(format_args!("connection out ended: {error}"));
                // A door that fails at once must not keep the processor busy.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.manager.take();
        }
    }

    async fn run_one(&self, door: &Door) -> Result<(), Box<dyn std::error::Error>> {
        let mut stream = door.next().await?;
        link::accept(&mut stream).await?;
        let (manager, connection) = http2::Builder::new(Local)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        self.manager.replace(Some(manager));
        Ok(connection.await?)
    }

    /// Asks the manager. Dropping the future cancels the request. None if the manager can't be reached.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Option<Response<Incoming>> {
        let mut manager = self.manager.borrow().clone()?;
        manager.ready().await.ok()?;
        manager.send_request(request).await.ok()
    }
}

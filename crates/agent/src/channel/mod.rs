//! Byte streams to the manager: over virtio-serial ports or a vsock, whichever the machine has.
//!
//! Owns how they come about; must not know what is said over them.

mod serial;
mod vsock;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::SystemError;

/// Where streams of one direction come from, one after the other.
pub(crate) enum Door {
    Serial(serial::Port),
    Vsock(vsock::Listener),
}

/// One stream. Reading and writing must happen in one task.
pub(crate) enum Stream {
    Serial(serial::Port),
    Vsock(vsock::Stream),
}

/// The doors for calls into the guest and for calls out of it.
pub(crate) fn open() -> Result<(Door, Door), SystemError> {
    if vsock::is_there() {
        let port = vsock::port();
        return Ok((Door::Vsock(vsock::Listener::new(port)?), Door::Vsock(vsock::Listener::new(port + 1)?)));
    }
    let port = |name| serial::Port::open(name).map(Door::Serial);
    Ok((port(rds_protocol::PORT_IN)?, port(rds_protocol::PORT_OUT)?))
}

impl Door {
    /// The next stream, once the manager has opened its side.
    pub(crate) async fn next(&self) -> io::Result<Stream> {
        match self {
            Self::Serial(port) => {
                port.connected().await?;
                Ok(Stream::Serial(port.clone()))
            }
            Self::Vsock(listener) => listener.accept().await.map(Stream::Vsock),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Serial(port) => Pin::new(port).poll_read(cx, buffer),
            Self::Vsock(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Serial(port) => Pin::new(port).poll_write(cx, data),
            Self::Vsock(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.get_mut() {
            Self::Serial(_) => Ok(()),
            Self::Vsock(stream) => stream.shutdown(),
        })
    }
}

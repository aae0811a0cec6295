//! Byte streams to the manager: over virtio-serial ports or a vsock, whichever the machine has.
//!
//! Owns how they come about; must not know what is said over them.

mod serial;
mod stream;
mod vsock;

use std::io;

use crate::error::SystemError;
pub(crate) use stream::Stream;

/// Where streams of one direction come from, one after the other.
pub(crate) enum Door {
    /// The one stream that there is, whoever has its other end open.
    Serial(Stream),
    /// Each stream is another.
    Vsock(vsock::Listener),
}

/// The doors for calls into the guest and for calls out of it.
pub(crate) fn open() -> Result<(Door, Door), SystemError> {
    if vsock::is_there() {
        let port = vsock::port();
        return Ok((Door::Vsock(vsock::Listener::new(port)?), Door::Vsock(vsock::Listener::new(port + 1)?)));
    }
    let port = |name| serial::open(name).map(Door::Serial);
    Ok((port(rds_protocol::PORT_IN)?, port(rds_protocol::PORT_OUT)?))
}

impl Door {
    /// The next stream, once the manager has opened its side.
    pub(crate) async fn next(&self) -> io::Result<Stream> {
        match self {
            Self::Serial(port) => {
                port.connected().await?;
                Ok(port.clone())
            }
            Self::Vsock(listener) => listener.accept().await,
        }
    }
}
